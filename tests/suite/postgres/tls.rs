//! An encrypted connection to the server, whose certificate must name its host and be trusted.

use std::path::Path;

use onceflow::prelude::*;
use onceflow::runtime::Pem;
use onceflow::runtime::postgres::postgres;
use rcgen::{CertificateParams, KeyPair};

use super::server::Server;
use super::support::{clicks, writes};
use crate::jobs::support::{Place, run};
use crate::time::support::{Click, feed, topic_of_clicks};

fn put(data: &Path, name: &str, text: &str) {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let path = data.join(name);
    std::fs::write(&path, text).unwrap();
    let owner = std::fs::metadata(data).unwrap();
    std::os::unix::fs::chown(&path, Some(owner.uid()), Some(owner.gid())).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn a_secured_connection_needs_a_certificate_that_is_trusted_and_names_the_host() {
    let key = KeyPair::generate().unwrap();
    let names = vec!["localhost".to_owned()];
    let certificate = CertificateParams::new(names)
        .unwrap()
        .self_signed(&key)
        .unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let settings = ["listen_addresses=127.0.0.1", "ssl=on"];
    let server = Server::start_with(port, &settings, |data| {
        put(data, "server.crt", &certificate.pem());
        put(data, "server.key", &key.serialize_pem());
        put(
            data,
            "pg_hba.conf",
            "local all all trust\nhostssl all all 127.0.0.1/32 trust\n",
        );
    });
    let Some(server) = server else {
        return;
    };
    server.ask("CREATE TABLE clicks (number bigint)");
    let outcome = |host: &str, authority: Option<String>| {
        let place = Place::new();
        let log = place.log();
        topic_of_clicks(&log, "in", 1);
        feed(&log, "in", 0, &clicks(0, 3));
        let url =
            format!("host={host} hostaddr=127.0.0.1 port={port} user=onceflow dbname=postgres");
        let sink =
            postgres(&url, "clicks").column("number", |it: &Record<'_, _, Click>| it.value.1);
        let sink = match authority {
            Some(authority) => sink.tls(Some(Pem::Text(authority))),
            None => sink,
        };
        run(writes(sink, false).workers(1), &log).map_err(|e| e.to_string())
    };
    let refused = outcome("localhost", None).unwrap_err();
    assert!(refused.contains("no pg_hba.conf entry"), "{refused}");
    let other = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let other = other.self_signed(&KeyPair::generate().unwrap()).unwrap();
    let refused = outcome("localhost", Some(other.pem())).unwrap_err();
    assert!(refused.contains("certificate"), "{refused}");
    let refused = outcome("elsewhere", Some(certificate.pem())).unwrap_err();
    assert!(refused.contains("certificate"), "{refused}");
    outcome("localhost", Some(certificate.pem())).unwrap();
    assert_eq!(server.ask("SELECT count(*) FROM clicks"), ["3"]);
}
