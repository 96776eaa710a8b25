//! TLS and keys.

use std::process::Command;
use std::time::Duration;

use shm_test_support::{Run, TempDir, clean, skip};

use crate::helpers::{FAR, Host, SOURCE, Server, Sink, Source, skip_without_server};

fn skip_without_openssl(test: &str) -> bool {
    let is_here = clean("openssl").arg("version").output().is_ok_and(|output| output.status.success());
    if !is_here {
        skip(test, "there is no openssl to make certificates with");
    }
    !is_here
}

fn openssl(dir: &TempDir, line: &str) {
    let mut command: Command = clean("openssl");
    command.args(line.split(' ')).current_dir(dir.path());
    Run::of(command).ok();
}

/// An authority `NAME.pem`, and certificates of the server and of a client that it has signed.
fn certificates(dir: &TempDir, name: &str) {
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc";
    openssl(dir, &format!("req -x509 {key} -keyout {name}.key -out {name}.pem -days 2 -subj /CN={name}"));
    for who in ["server", "client"] {
        let who = format!("{name}-{who}");
        openssl(
            dir,
            &format!("req {key} -keyout {who}.key -out {who}.csr -subj /CN={who} -addext subjectAltName=IP:127.0.0.1"),
        );
        let sign = format!("x509 -req -in {who}.csr -CA {name}.pem -CAkey {name}.key -CAcreateserial -days 2");
        openssl(dir, &format!("{sign} -copy_extensions copy -out {who}.pem"));
    }
}

#[test]
fn tls_with_certificates_on_both_sides() {
    if skip_without_server("tls") || skip_without_openssl("tls") {
        return;
    }
    let dir = TempDir::named(&shm_test_support::unique("tls"));
    certificates(&dir, "good");
    certificates(&dir, "other");
    let file = |name: &str| dir.path().join(name).display().to_string();
    let tls = format!(
        "tls {{ cert_file: \"{}\", key_file: \"{}\", ca_file: \"{}\", verify: true }}",
        file("good-server.pem"),
        file("good-server.key"),
        file("good.pem")
    );
    let (server, here, there) = (Server::with(&tls), Host::start(SOURCE), Host::start(FAR));
    let url = server.url().replace("nats://", "tls://");
    let (ca, cert, key) = (file("good.pem"), file("good-client.pem"), file("good-client.key"));
    let mine = ["--ca", &ca, "--cert", &cert, "--key", &key];
    let other = file("other.pem");
    // An authority that has not signed the server's certificate: the relay goes no further.
    let mut distrusting = here.out(&url, &["--ca", &other, "--cert", &cert, "--key", &key]);
    distrusting.until_err_has("certificate");
    assert!(!distrusting.err_so_far().contains("connected to"), "{distrusting:?}");
    drop(distrusting);
    here.out(&url, &["--ca", "/nowhere/ca.pem"]).wait().fails(1, &["cannot use /nowhere/ca.pem"]);
    let _out = here.out_with_stream(&url, &mine);
    let _inward = there.inward(&url, &mine);
    let _source = Source::start(here.daemon.endpoint(), 2000, 3000, Duration::ZERO);
    Sink::start(there.daemon.endpoint(), 0, 3000).finish(2000);
}

/// A user that `nk -gen user` has made for this test, and its seed.
const USER: &str = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4";
const SEED: &str = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY";

#[test]
fn a_key_admits_the_relay_and_another_one_does_not() {
    if skip_without_server("nkey") {
        return;
    }
    let server = Server::with(&format!("authorization {{ users: [ {{ nkey: {USER} }} ] }}"));
    let (here, there) = (Host::start(SOURCE), Host::start(FAR));
    let file = server.dir.path().join("seed").display().to_string();
    std::fs::write(&file, format!("{SEED}\n")).unwrap();
    here.out(&server.url(), &[]).wait().fails(77, &["does not accept this relay"]);
    let _out = here.out_with_stream(&server.url(), &["--nkey", &file]);
    let _inward = there.inward(&server.url(), &["--nkey", &file]);
    let _source = Source::start(here.daemon.endpoint(), 100, 0, Duration::ZERO);
    Sink::start(there.daemon.endpoint(), 0, 0).finish(100);
    std::fs::write(&file, "no seed\n").unwrap();
    here.out(&server.url(), &["--nkey", &file]).wait().fails(77, &["does not accept this relay"]);
}
