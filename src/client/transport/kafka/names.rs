//! Other names of settings: Java's forms of PEM and of passwords, librdkafka's names, and Kafka's settings that we do not have.

/// Settings of ours with their values, or why what was given is not possible.
type Meaning = Result<Vec<(&'static str, String)>, String>;

const CA: &str = "ssl.truststore.location";
const CERTIFICATE: &str = "ssl.keystore.certificate.chain";
const KEY: &str = "ssl.keystore.key";

/// Explains a name that is not one of ours; `None` if it is one of ours, or of nobody's.
pub(super) fn meaning(name: &str, value: &str) -> Option<Meaning> {
    let same = |ours| Some(Ok(vec![(ours, value.to_owned())]));
    match name {
        "ssl.truststore.certificates" | "ssl.ca.location" | "ssl.ca.pem" => same(CA),
        "ssl.certificate.location" | "ssl.certificate.pem" => same(CERTIFICATE),
        "ssl.key.location" | "ssl.key.pem" => same(KEY),
        // One file with the key and the chain, as Kafka takes it for PEM.
        "ssl.keystore.location" => Some(Ok(vec![
            (CERTIFICATE, value.to_owned()),
            (KEY, value.to_owned()),
        ])),
        "ssl.keystore.type" | "ssl.truststore.type" => Some(pem_only(value)),
        "sasl.jaas.config" => Some(jaas(value)),
        _ => {
            absent(name).map(|why| Err(format!("Kafka has this setting, Onceflow has not: {why}")))
        }
    }
}

fn pem_only(value: &str) -> Meaning {
    match value.trim().eq_ignore_ascii_case("PEM") {
        true => Ok(Vec::new()),
        false => Err(
            "PEM is needed; `keytool -importkeystore -deststoretype PKCS12` and `openssl pkcs12 -nodes` make it of a Java keystore"
                .to_owned(),
        ),
    }
}

/// `…ScramLoginModule required username="alice" password="secret";`
fn jaas(value: &str) -> Meaning {
    let module = value.split_whitespace().next().unwrap_or_default();
    let is_known = ["ScramLoginModule", "PlainLoginModule"]
        .iter()
        .any(|known| module.ends_with(known));
    if !is_known {
        return Err(
            "…ScramLoginModule or …PlainLoginModule is needed, with username and password"
                .to_owned(),
        );
    }
    let option = |name: &str| {
        let begin = value.find(&format!(" {name}=\""))? + name.len() + 3;
        let rest = value.get(begin..)?;
        let mut text = String::new();
        let mut letters = rest.chars();
        loop {
            match letters.next()? {
                '"' => return Some(text),
                '\\' => text.push(letters.next()?),
                letter => text.push(letter),
            }
        }
    };
    match (option("username"), option("password")) {
        (Some(username), Some(password)) => Ok(vec![
            ("sasl.username", username),
            ("sasl.password", password),
        ]),
        _ => Err(
            "username=\"…\" and password=\"…\" are needed; or set sasl.username and sasl.password"
                .to_owned(),
        ),
    }
}

/// Explains why we lack a setting of Kafka's clients.
fn absent(name: &str) -> Option<&'static str> {
    let why = match name {
        "ssl.key.password" | "ssl.keystore.password" | "ssl.truststore.password" => {
            "PEM is read without a password: decrypt the key (openssl pkcs8) and guard the file"
        }
        "ssl.protocol"
        | "ssl.enabled.protocols"
        | "ssl.cipher.suites"
        | "ssl.provider"
        | "ssl.engine.factory.class"
        | "ssl.keymanager.algorithm"
        | "ssl.trustmanager.algorithm"
        | "ssl.secure.random.implementation" => {
            "TLS 1.3 and 1.2 are spoken, the newer one where both sides can, with safe ciphers only"
        }
        "key.serializer" | "value.serializer" | "key.deserializer" | "value.deserializer" => {
            "codecs are chosen by the types of the program"
        }
        "interceptor.classes" | "partitioner.class" => "it is given in code",
        "client.dns.lookup" => "all addresses of a name are tried in turn",
        "client.rack" => "records are read from the leaders",
        "check.crcs" => "checksums are always verified",
        "send.buffer.bytes" | "receive.buffer.bytes" => "the operating system sizes it",
        "socket.connection.setup.timeout.max.ms" => {
            "socket.connection.setup.timeout.ms holds for every attempt"
        }
        "metadata.recovery.strategy" | "metadata.recovery.rebootstrap.trigger.ms" => {
            "when no known broker answers, those of bootstrap.servers are asked again at once"
        }
        "enable.metrics.push"
        | "metric.reporters"
        | "metrics.num.samples"
        | "metrics.recording.level"
        | "metrics.sample.window.ms"
        | "auto.include.jmx.reporter" => "it tells what it does by `tracing`",
        "allow.auto.create.topics" => "topics are created by a call, not by being read",
        "exclude.internal.topics" => "topics are subscribed to by their names",
        _ if name.starts_with("sasl.oauthbearer.")
            || name.starts_with("sasl.kerberos.")
            || name.starts_with("sasl.login.")
            || name == "sasl.client.callback.handler.class" =>
        {
            "the mechanisms are PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512, with sasl.username and sasl.password"
        }
        _ => return None,
    };
    Some(why)
}
