"""A plugin of pytest: kafka-python's tests of TLS and logins, which start a Kafka of their own, start our broker instead."""

import os
import shutil
import socket
import subprocess
import tempfile
import time

from kafka import KafkaAdminClient
from test.integration import fixtures

READY_SECONDS = 60


class Child:
    """What the tests do with the broker's process."""

    def __init__(self, arguments):
        self.process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL)

    def stop(self):
        self.process.terminate()
        self.process.wait()

    def dump_logs(self):
        pass


class SecuredBroker(fixtures.KafkaFixture):
    """`onceflow broker` with TLS or logins, as the transport of a test asks for."""

    def open(self):
        self.directory = tempfile.mkdtemp()
        onceflow, data = os.environ["ONCEFLOW"], os.path.join(self.directory, "data")
        arguments = [onceflow, "broker", "--listen", "127.0.0.1:%d" % self.port, "--data", data]
        arguments += ["--partitions", str(self.partitions)]
        if self.ssl_enabled:
            self.ssl_dir = self.directory
            make_certificates(self.directory)
            arguments += ["--tls-cert", os.path.join(self.directory, "cert.pem")]
            arguments += ["--tls-key", os.path.join(self.directory, "key.pem")]
        if self.sasl_enabled:
            add_user = [onceflow, "user", "add", self.broker_user, "--data", data]
            subprocess.run(add_user, input=self.broker_password + "\n", text=True, check=True)
            arguments += ["--sasl", self.sasl_mechanism]
        self.child = Child(arguments)
        self.wait_until_it_listens()
        self.running = True

    def wait_until_it_listens(self):
        deadline = time.monotonic() + READY_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                return
            except ConnectionRefusedError:
                assert self.child.process.poll() is None, "the broker has ended"
                assert time.monotonic() < deadline, "the broker does not listen"
                time.sleep(0.02)

    def start(self):
        """It runs since `open`."""

    def close(self):
        if self.child is not None:
            self.child.stop()
            self.child = None
            shutil.rmtree(self.directory)

    def get_topic_names(self):
        with KafkaAdminClient(**self._enrich_client_params({}, client_id="topics")) as admin:
            return admin.list_topics()


def make_certificates(directory):
    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], cwd=directory, check=True, stderr=subprocess.DEVNULL)

    new = ["req", "-newkey", "rsa:2048", "-nodes", "-keyout"]
    authority = ["ca-key", "-x509", "-out", "ca-cert", "-days", "1", "-subj", "/CN=authority"]
    openssl(*new, *authority, "-addext", "keyUsage=critical,keyCertSign,cRLSign")
    openssl(*new, "key.pem", "-out", "request", "-subj", "/CN=localhost")
    with open(os.path.join(directory, "extensions"), "w") as extensions:
        extensions.write("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    sign = ["x509", "-req", "-in", "request", "-CA", "ca-cert", "-CAkey", "ca-key", "-CAcreateserial"]
    openssl(*sign, "-days", "1", "-extfile", "extensions", "-out", "cert.pem")


fixtures.KafkaFixture = SecuredBroker
