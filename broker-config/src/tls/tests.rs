use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::config::ClientCertificates;

fn own(dir: &Path) -> Tls {
    Tls { directory: dir.to_owned(), ..Tls::default() }
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn an_authority_is_made_once_and_its_key_is_its_owners() {
    let dir = tempfile::tempdir().unwrap();
    Acceptor::new(&own(dir.path())).unwrap();
    let file = |name: &str| dir.path().join(name);
    let before = ["ca.pem", "ca.key", "server.pem", "server.key"].map(|name| {
        assert_eq!(mode(&file(name)), if name.ends_with("key") { 0o600 } else { 0o644 }, "{name}");
        std::fs::read(file(name)).unwrap()
    });
    let acceptor = Acceptor::new(&own(dir.path())).unwrap();
    assert!(!acceptor.reload().unwrap());
    let after = ["ca.pem", "ca.key", "server.pem", "server.key"]
        .map(|name| std::fs::read(file(name)).unwrap());
    assert!(before == after, "a second start finds everything");
}

#[test]
fn a_certificate_for_other_names_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    Acceptor::new(&own(dir.path())).unwrap();
    let before = std::fs::read(dir.path().join("server.pem")).unwrap();
    let mut renamed = own(dir.path());
    renamed.names = vec!["door.example".to_owned(), "192.0.2.7".to_owned()];
    let acceptor = Acceptor::new(&renamed).unwrap();
    assert_ne!(std::fs::read(dir.path().join("server.pem")).unwrap(), before);
    assert!(!acceptor.reload().unwrap(), "once");
}

#[test]
fn common_names_are_users() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::open(dir.path()).unwrap();
    let issued = authority.issue_client("door-3").unwrap();
    let der = CertificateDer::from_pem_slice(issued.certificate.as_bytes()).unwrap();
    assert_eq!(common_name(&der).as_deref(), Some("door-3"));
    assert!(authority.issue_client("door/3").is_err());
    assert_eq!(common_name(&CertificateDer::from(vec![1, 2, 3])), None);
}

#[test]
fn what_cannot_be_used_is_said() {
    let dir = tempfile::tempdir().unwrap();
    Acceptor::new(&own(dir.path())).unwrap();
    let file = |name: &str| dir.path().join(name);
    let tls = |certificate: &str, key: &str| Tls {
        certificate_file: Some(file(certificate)),
        key_file: Some(file(key)),
        ..own(dir.path())
    };
    let error = |tls: &Tls| Acceptor::new(tls).err().unwrap().to_string();
    assert!(error(&tls("missing.pem", "server.key")).contains("cannot read"));
    assert!(error(&tls("server.key", "server.key")).contains("no certificate in PEM"));
    assert!(error(&tls("server.pem", "ca.key")).contains("server.pem"), "keys don't match");
    let half = Tls { key_file: None, ..tls("server.pem", "server.key") };
    assert!(error(&half).contains("go together"));
    let mut open = std::fs::metadata(file("server.key")).unwrap().permissions();
    open.set_mode(0o644);
    std::fs::set_permissions(file("server.key"), open).unwrap();
    assert!(error(&tls("server.pem", "server.key")).contains("chmod 600"));
    let bad_ca = Tls {
        client_certificates: ClientCertificates::Required,
        client_ca_file: Some(file("server.key")),
        ..own(dir.path())
    };
    assert!(error(&bad_ca).contains("chmod") || error(&bad_ca).contains("PEM"));
}
