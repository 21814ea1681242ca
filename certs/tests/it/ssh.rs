use std::net::IpAddr;
use std::process::Command;

use certs::ssh::{
    BACKDATE, HostCertificateRequest, SshIssueError, SshTrust, UserCertificateRequest, generate_key,
    issue_host_certificate, issue_user_certificate,
};
use certs::ssh_key::certificate::{Builder, CertType};
use certs::ssh_key::{Certificate, HashAlg, PrivateKey};
use certs::{CertRefusal, check_user_certificate};
use model::{SeededEntropy, Timestamp};
use proptest::prelude::*;

use crate::{now, secs};

fn key(seed: u64) -> PrivateKey {
    generate_key(&SeededEntropy::new(seed), "test").unwrap()
}

fn ca() -> PrivateKey {
    key(1)
}

fn trust() -> SshTrust {
    SshTrust::new(vec![ca().public_key().clone()])
}

fn request() -> UserCertificateRequest {
    UserCertificateRequest {
        person: "u:alice".parse().unwrap(),
        public_key: key(2).public_key().clone(),
        lifetime: secs(900),
        source_addresses: vec![],
        pty: true,
        port_forwarding: false,
        force_command: None,
    }
}

fn issue(request: &UserCertificateRequest) -> Certificate {
    issue_user_certificate(request, &ca(), now(), &SeededEntropy::new(3)).unwrap()
}

fn check(certificate: &Certificate, at: Timestamp, peer: Option<&str>) -> Result<(), CertRefusal> {
    let peer = peer.map(|ip| ip.parse::<IpAddr>().unwrap());
    check_user_certificate(certificate, &trust(), at, peer).map(|_| ())
}

/// A certificate as our authority would never make it.
fn odd(change: impl FnOnce(&mut Builder)) -> Certificate {
    odd_valid(now().as_secs() as u64 - 10, now().as_secs() as u64 + 600, change)
}

fn odd_valid(from: u64, until: u64, change: impl FnOnce(&mut Builder)) -> Certificate {
    let mut builder = Builder::new([7; 32], key(2).public_key().key_data().clone(), from, until).unwrap();
    change(&mut builder);
    builder.sign(&ca()).unwrap()
}

fn alice(builder: &mut Builder) -> &mut Builder {
    builder.cert_type(CertType::User).unwrap();
    builder.key_id("u:alice").unwrap();
    builder.valid_principal("u:alice").unwrap()
}

#[test]
fn an_issued_certificate_proves_its_person() {
    let certificate = issue(&request());
    let principal = check_user_certificate(&certificate, &trust(), now(), None).unwrap();
    assert_eq!(principal.person.as_str(), "u:alice");
    assert_eq!(principal.expires, now().plus(secs(900)));
    assert_eq!(principal.key_fingerprint, key(2).fingerprint(HashAlg::Sha256).to_string());
    assert_eq!(principal.serial, certificate.serial());
    let permits = principal.permits;
    assert!(permits.pty && !permits.port_forwarding && !permits.agent_forwarding);
    assert!(!permits.x11 && !permits.user_rc && permits.force_command.is_none());
}

#[test]
fn the_window_is_kept_to_the_second() {
    let certificate = issue(&request());
    let until = now().plus(secs(900));
    let from = now().minus(BACKDATE);
    assert_eq!(check(&certificate, from, None), Ok(()));
    assert_eq!(check(&certificate, from.minus(secs(1)), None), Err(CertRefusal::NotYetValid { from }));
    assert_eq!(check(&certificate, Timestamp::from_millis(until.as_millis() - 1), None), Ok(()));
    assert_eq!(check(&certificate, until, None), Err(CertRefusal::Expired { at: until }));
}

#[test]
fn strangers_are_refused() {
    let foreign = issue_user_certificate(&request(), &key(9), now(), &SeededEntropy::new(3)).unwrap();
    assert!(matches!(check(&foreign, now(), None), Err(CertRefusal::UnknownAuthority { .. })));
    let nobody = SshTrust::new(vec![]);
    assert!(check_user_certificate(&issue(&request()), &nobody, now(), None).is_err());
}

#[test]
fn a_host_certificate_is_no_persons() {
    let certificate = odd(|b| {
        alice(b);
        *b = {
            let mut host = Builder::new(
                [7; 32],
                key(2).public_key().key_data().clone(),
                now().as_secs() as u64,
                now().as_secs() as u64 + 60,
            )
            .unwrap();
            host.cert_type(CertType::Host).unwrap().key_id("u:alice").unwrap();
            host.valid_principal("u:alice").unwrap();
            host
        };
    });
    assert_eq!(check(&certificate, now(), None), Err(CertRefusal::NotUserCertificate));
}

#[test]
fn exactly_one_person_and_the_one_of_the_key_id() {
    let build = |id: &str, principals: &[&str]| {
        odd(|b| {
            b.cert_type(CertType::User).unwrap().key_id(id).unwrap();
            if principals.is_empty() {
                b.all_principals_valid().unwrap();
            }
            for principal in principals {
                b.valid_principal(*principal).unwrap();
            }
        })
    };
    assert_eq!(check(&build("u:alice", &["u:alice"]), now(), None), Ok(()));
    assert_eq!(check(&build("u:alice", &[]), now(), None), Err(CertRefusal::NoPrincipal));
    for (id, principals) in [
        ("u:alice", &["u:bob"][..]),
        ("u:alice", &["u:alice", "u:bob"]),
        ("u:alice", &["u:alice", "u:alice"]),
        ("alice", &["alice"]),
        ("role:lead", &["role:lead"]),
        ("u:../etc", &["u:../etc"]),
        ("", &[""]),
    ] {
        let result = check(&build(id, principals), now(), None);
        assert_eq!(result, Err(CertRefusal::WrongPrincipal), "{id} {principals:?}");
    }
}

#[test]
fn long_and_endless_lives_are_refused() {
    let at = now().as_secs() as u64;
    let endless = odd_valid(0, u64::MAX, |b| {
        alice(b);
    });
    assert!(matches!(check(&endless, now(), None), Err(CertRefusal::TooLong { lifetime: None, .. })));
    let day = odd_valid(at, at + 86_400, |b| {
        alice(b);
    });
    let error = check(&day, now(), None).unwrap_err();
    assert_eq!(error, CertRefusal::TooLong { lifetime: Some(86_400), max: 3600 });
    assert!(error.to_string().contains("sekisho login"), "{error}");
}

#[test]
fn source_addresses_are_kept() {
    let certificate = issue(&UserCertificateRequest {
        source_addresses: vec!["192.0.2.0/24".parse().unwrap(), "2001:db8::7".parse().unwrap()],
        ..request()
    });
    assert_eq!(check(&certificate, now(), Some("192.0.2.9")), Ok(()));
    assert_eq!(check(&certificate, now(), Some("::ffff:192.0.2.9")), Ok(()));
    assert_eq!(check(&certificate, now(), Some("2001:db8::7")), Ok(()));
    for peer in [Some("192.0.3.9"), Some("2001:db8::8"), None] {
        let result = check(&certificate, now(), peer);
        assert!(matches!(result, Err(CertRefusal::SourceAddress { .. })), "{peer:?}");
    }
}

#[test]
fn critical_options_are_understood_or_refused() {
    let with = |name: &str, value: &str| {
        odd(|b| {
            alice(b).critical_option(name, value).unwrap();
        })
    };
    let forced = with("force-command", "/usr/bin/true");
    let principal = check_user_certificate(&forced, &trust(), now(), None).unwrap();
    assert_eq!(principal.permits.force_command.as_deref(), Some("/usr/bin/true"));
    for (name, value) in [("source-address", "here"), ("source-address", ""), ("force-command", "")] {
        let result = check(&with(name, value), now(), Some("192.0.2.1"));
        assert_eq!(result, Err(CertRefusal::MalformedOption(name.to_owned())), "{name}={value}");
    }
    for name in ["verify-required", "no-such@sekisho", "Force-Command"] {
        let result = check(&with(name, ""), now(), None);
        assert_eq!(result, Err(CertRefusal::UnknownCriticalOption(name.to_owned())));
    }
    let hostile = check(&with("\u{1b}[2Jx", ""), now(), None).unwrap_err().to_string();
    assert!(!hostile.contains('\u{1b}'), "escape sequences do not reach the terminal: {hostile:?}");
}

#[test]
fn extensions_become_permits() {
    let certificate = odd(|b| {
        alice(b);
        for name in ["permit-X11-forwarding", "permit-user-rc", "permit-port-forwarding", "else@where"] {
            b.extension(name, "").unwrap();
        }
    });
    let permits = check_user_certificate(&certificate, &trust(), now(), None).unwrap().permits;
    assert!(permits.x11 && permits.user_rc && permits.port_forwarding);
    assert!(!permits.pty && !permits.agent_forwarding);
    let valued = odd(|b| {
        alice(b).extension("permit-pty", "maybe").unwrap();
    });
    assert!(matches!(check(&valued, now(), None), Err(CertRefusal::MalformedOption(_))));
}

#[test]
fn revoked_serials_and_keys_are_refused() {
    let certificate = issue(&request());
    let print = |key: &PrivateKey| key.fingerprint(HashAlg::Sha256).to_string();
    for (serial, revoked) in
        [(Some(certificate.serial()), None), (None, Some(print(&key(2)))), (None, Some(print(&ca())))]
    {
        let mut trust = trust();
        trust.revoked_serials.extend(serial);
        trust.revoked_keys.extend(revoked);
        let result = check_user_certificate(&certificate, &trust, now(), None);
        assert_eq!(result, Err(CertRefusal::Revoked));
    }
}

#[test]
fn every_flipped_bit_is_refused() {
    let certificate =
        issue(&UserCertificateRequest { source_addresses: vec!["0.0.0.0/0".parse().unwrap()], ..request() });
    let peer = Some("192.0.2.1");
    assert_eq!(check(&certificate, now(), peer), Ok(()));
    let bytes = certificate.to_bytes().unwrap();
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut bad = bytes.clone();
            bad[at] ^= 1 << bit;
            if let Ok(bad) = Certificate::from_bytes(&bad) {
                assert!(check(&bad, now(), peer).is_err(), "byte {at} bit {bit}");
            }
        }
    }
}

#[test]
fn the_issuer_keeps_its_rules() {
    let issue = |lifetime| {
        let request = UserCertificateRequest { lifetime, ..request() };
        issue_user_certificate(&request, &ca(), now(), &SeededEntropy::new(3))
    };
    assert!(issue(secs(3600)).is_ok());
    assert!(matches!(issue(secs(3601)), Err(SshIssueError::Lifetime { max: 3600, asked: 3601 })));
    assert!(matches!(issue(secs(0)), Err(SshIssueError::Lifetime { .. })));
    let host = |principals: &[&str], lifetime| {
        let request = HostCertificateRequest {
            principals: principals.iter().map(ToString::to_string).collect(),
            public_key: key(4).public_key().clone(),
            lifetime,
        };
        issue_host_certificate(&request, &ca(), now(), &SeededEntropy::new(3))
    };
    assert!(host(&["localhost", "127.0.0.1", "::1"], secs(86_400)).is_ok());
    assert!(matches!(host(&["localhost"], secs(86_401)), Err(SshIssueError::Lifetime { .. })));
    for bad in [&[][..], &["*"], &["a b"], &["*.example"], &[""]] {
        assert!(matches!(host(bad, secs(60)), Err(SshIssueError::Principals)), "{bad:?}");
    }
    let public_key = RSA.parse().unwrap();
    let request = UserCertificateRequest { public_key, ..request() };
    let result = issue_user_certificate(&request, &ca(), now(), &SeededEntropy::new(3));
    assert!(matches!(result, Err(SshIssueError::KeyType(_))));
}

const RSA: &str = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQC9gbOQVAHNAeO5FNOoXzk9Qu4ASealB0ZWmRD8zHEryp5TxS6r6wf9fD9vO9\
                 GpiDS9DCmYS/HSOYJKKNtRzDvaWk6dexPr4SxVsXQuaX6MNhg6NEWt8Xuw7QX7jj94Zglt9O5kWfx7dDPjV7C0hKk+\
                 MQ9Jjn6AwUEtTMUGavC3a9HHsDtnTUfoFE8tY5zH8zmwjVtnJqsRAldxNTQwsmnnqR/bl7Eybn5oSdf+DN6uqz5zqa\
                 zPOsi3VUEvRu4kejAokaFzq/Yhuld4STUpNTtqKk2+BOoK3RC24mxtpVsR8rt1gpcaWMOLtuIYmPdcEelREdO8uQ5E\
                 rmVzU/gewLiJ";

#[test]
fn openssh_reads_what_we_issue() {
    let user = issue(&UserCertificateRequest {
        source_addresses: vec!["192.0.2.0/24".parse().unwrap()],
        ..request()
    });
    let host = issue_host_certificate(
        &HostCertificateRequest {
            principals: vec!["localhost".to_owned(), "127.0.0.1".to_owned()],
            public_key: key(4).public_key().clone(),
            lifetime: secs(86_400),
        },
        &ca(),
        now(),
        &SeededEntropy::new(5),
    )
    .unwrap();
    let text = ssh_keygen(&user);
    for expected in [
        "Type: ssh-ed25519-cert-v01@openssh.com user certificate",
        &format!("Signing CA: ED25519 {}", ca().fingerprint(HashAlg::Sha256)),
        "Key ID: \"u:alice\"",
        &format!("Serial: {}", user.serial()),
        "Valid: from 2026-09-21T14:12:20 to 2026-09-21T14:28:20",
        "Principals: \n                u:alice\n",
        "source-address 192.0.2.0/24",
        "Extensions: \n                permit-pty\n",
    ] {
        assert!(text.contains(expected), "{expected:?} is not in\n{text}");
    }
    let text = ssh_keygen(&host);
    for expected in
        ["host certificate", "localhost\n", "127.0.0.1\n", "Critical Options: (none)", "Extensions: (none)"]
    {
        assert!(text.contains(expected), "{expected:?} is not in\n{text}");
    }
}

fn ssh_keygen(certificate: &Certificate) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), certificate.to_openssh().unwrap() + "\n").unwrap();
    let output = Command::new("ssh-keygen")
        .env("TZ", "UTC")
        .args(["-L", "-f"])
        .arg(file.path())
        .output()
        .expect("ssh-keygen of OpenSSH is needed for this test");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

proptest! {
    #[test]
    fn no_bytes_pass(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        if let Ok(certificate) = Certificate::from_bytes(&bytes) {
            prop_assert!(check(&certificate, now(), None).is_err());
        }
    }

    #[test]
    fn a_certificate_opens_within_its_window_only(life in 30u64..=3600, offset in -5000i64..5000) {
        let certificate = issue(&UserCertificateRequest { lifetime: secs(life), ..request() });
        let at = Timestamp::from_secs(now().as_secs() + offset);
        let inside = -60 <= offset && offset < life as i64;
        prop_assert_eq!(check(&certificate, at, None).is_ok(), inside);
    }
}
