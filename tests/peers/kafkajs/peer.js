// KafkaJS as a peer: see ../README.md. Its codecs but gzip are packages of their own.

const { CompressionCodecs, CompressionTypes, Kafka, logLevel } = require("kafkajs");
const snappy = require("kafkajs-snappy");
const lz4 = require("lz4-napi");
const { ZstdCodec } = require("zstd-codec");

const CODECS = {
  none: CompressionTypes.None,
  gzip: CompressionTypes.GZIP,
  snappy: CompressionTypes.Snappy,
  lz4: CompressionTypes.LZ4,
  zstd: CompressionTypes.ZSTD,
};

async function installCodecs() {
  CompressionCodecs[CompressionTypes.Snappy] = snappy;
  CompressionCodecs[CompressionTypes.LZ4] = () => ({
    compress: async (encoder) => lz4.compressFrame(encoder.buffer),
    decompress: async (bytes) => lz4.decompressFrame(bytes),
  });
  const zstd = await new Promise((resolve) => ZstdCodec.run((codec) => resolve(new codec.Streaming())));
  CompressionCodecs[CompressionTypes.ZSTD] = () => ({
    compress: async (encoder) => Buffer.from(zstd.compress(encoder.buffer)),
    decompress: async (bytes) => Buffer.from(zstd.decompress(bytes)),
  });
}

function options() {
  const words = process.argv.slice(3);
  const own = {};
  for (let i = 0; i + 1 < words.length; i += 2) own[words[i].slice(2)] = words[i + 1];
  return own;
}

function messages(phase, count) {
  return Array.from({ length: count }, (_, i) => ({
    key: `k${i}`,
    value: `${phase}-${i}`,
    headers: { h: phase },
    partition: 0,
  }));
}

async function transact(kafka, topic, codec, prefix, count) {
  const producer = kafka.producer({
    transactionalId: `kafkajs-${topic}`,
    maxInFlightRequests: 1,
    idempotent: true,
  });
  await producer.connect();
  let offset = 0;
  for (const phase of ["c", "a", "d"]) {
    offset += 1;
    const transaction = await producer.transaction();
    await transaction.send({ topic, compression: CODECS[codec], messages: messages(phase, count) });
    await transaction.sendOffsets({
      consumerGroupId: `${prefix}-offsets`,
      topics: [{ topic, partitions: [{ partition: 0, offset: String(offset) }] }],
    });
    await (phase === "a" ? transaction.abort() : transaction.commit());
  }
  await producer.disconnect();
}

async function write(kafka, own) {
  const producer = kafka.producer({ idempotent: true, maxInFlightRequests: 1 });
  await producer.connect();
  for (const codec of own.codecs.split(",")) {
    const topic = `${own.prefix}-${codec}`;
    const count = Number(own.count);
    await producer.send({ topic, compression: CODECS[codec], messages: messages("p", count) });
    await transact(kafka, topic, codec, own.prefix, count);
    await producer.send({ topic, messages: [{ value: "end", partition: 0 }] });
  }
  await producer.disconnect();
}

// KafkaJS reads through groups only; without --group it takes one of its own.
async function read(kafka, own) {
  const topics = own.topics.split(",");
  const unfinished = new Set(topics);
  const consumer = kafka.consumer({
    groupId: own.group || `kafkajs-${process.pid}-${process.hrtime.bigint()}`,
    readUncommitted: own.isolation === "read_uncommitted",
    maxWaitTimeInMs: 200,
  });
  await consumer.connect();
  await consumer.subscribe({ topics, fromBeginning: true });
  let finish;
  const finished = new Promise((resolve) => (finish = resolve));
  const lines = [];
  await consumer.run({
    eachMessage: async ({ topic, message }) => {
      const text = (field) => (field === null || field === undefined ? null : field.toString());
      lines.push(
        JSON.stringify({
          topic,
          offset: Number(message.offset),
          key: text(message.key),
          value: text(message.value),
          header: text((message.headers || {}).h),
        }),
      );
      if (text(message.value) === "end") unfinished.delete(topic);
      if (unfinished.size === 0) finish();
    },
  });
  await finished;
  if (lines.length > 0) console.log(lines.join("\n"));
  await consumer.disconnect();
}

async function main() {
  await installCodecs();
  const own = options();
  const kafka = new Kafka({
    clientId: "peer",
    brokers: own.bootstrap.split(","),
    logLevel: logLevel.NOTHING,
    retry: { initialRetryTime: 50, retries: 10 },
  });
  await { write, read }[process.argv[2]](kafka, own);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
