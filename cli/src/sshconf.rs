//! What the stock OpenSSH client is told: configuration and known hosts.

use std::path::Path;

/// Where a broker's SSH door is and how it is known.
#[derive(Debug, Clone, Copy)]
pub struct Door<'a> {
    /// The person's name: whoever connects to `gate` alone is shown what they have.
    pub person: &'a str,
    /// Host name or address.
    pub host: &'a str,
    /// Port.
    pub port: u16,
    /// The authority of host certificates, an OpenSSH public key line.
    pub host_ca: &'a str,
    /// The broker's own host key, for a server that shows no certificate.
    pub host_key: Option<&'a str>,
}

/// A configuration with which `ssh -F … STUDY@gate` works. `gate` is the name for the broker; its
/// address works too. Nothing of the person's own configuration, keys or agents is used.
pub fn config(home: &Path, door: &Door<'_>) -> String {
    let file = |name: &str| quoted(&home.join(name).to_string_lossy());
    let (host, port, person) = (door.host, door.port, door.person);
    format!(
        "# Written by `sekisho login`, which overwrites it. Use: ssh -F {this} STUDY@gate\n\
         Host gate {host}\n\
         \x20 HostName {host}\n\
         \x20 Port {port}\n\
         \x20 User {person}\n\
         \x20 SendEnv LANG LC_*\n\
         \x20 IdentityFile {key}\n\
         \x20 CertificateFile {certificate}\n\
         \x20 IdentitiesOnly yes\n\
         \x20 IdentityAgent none\n\
         \x20 PreferredAuthentications publickey\n\
         \x20 UserKnownHostsFile {known}\n\
         \x20 GlobalKnownHostsFile /dev/null\n\
         \x20 StrictHostKeyChecking yes\n\
         \x20 UpdateHostKeys no\n\
         \x20 CheckHostIP no\n\
         \x20 ForwardAgent no\n\
         \x20 ForwardX11 no\n\
         \x20 ServerAliveInterval 30\n",
        this = file("ssh_config"),
        key = file("id_ed25519"),
        certificate = file("id_ed25519-cert.pub"),
        known = file("known_hosts"),
    )
}

/// Known hosts with the authority of host certificates, and the plain key where one is known.
pub fn known_hosts(door: &Door<'_>) -> String {
    // OpenSSH looks a host up as `name` on port 22 and as `[name]:port` on another.
    let name = if door.port == 22 { door.host.to_owned() } else { format!("[{}]:{}", door.host, door.port) };
    let mut text = format!("@cert-authority {name} {}\n", door.host_ca.trim());
    if let Some(key) = door.host_key {
        text += &format!("{name} {}\n", key.trim());
    }
    text
}

/// In the quotes of ssh_config, with its two kinds of escapes.
fn quoted(path: &str) -> String {
    format!("\"{}\"", path.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%"))
}

/// Whether a host name or address from elsewhere may stand in these files: nothing that would end
/// a line, a word or a pattern.
pub fn is_plain_host(host: &str) -> bool {
    !host.is_empty()
        && host.len() <= 255
        && !host.starts_with('-')
        && host.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b':' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CA: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ host-ca";

    fn door(port: u16) -> Door<'static> {
        Door { person: "alice", host: "127.0.0.1", port, host_ca: CA, host_key: None }
    }

    #[test]
    fn the_authority_is_known_for_this_door_only() {
        assert_eq!(known_hosts(&door(2222)), format!("@cert-authority [127.0.0.1]:2222 {CA}\n"));
        assert_eq!(known_hosts(&door(22)), format!("@cert-authority 127.0.0.1 {CA}\n"));
        let with_key = known_hosts(&Door { host_key: Some("ssh-ed25519 AAAA\n"), ..door(2222) });
        assert!(with_key.ends_with("\n[127.0.0.1]:2222 ssh-ed25519 AAAA\n"), "{with_key}");
    }

    /// OpenSSH itself says what it understood.
    #[test]
    fn openssh_understands_the_configuration() {
        let dir = tempfile::Builder::new().prefix("a 100% \"home").tempdir().unwrap();
        let path = dir.path().join("ssh_config");
        std::fs::write(&path, config(dir.path(), &door(2222))).unwrap();
        let Ok(out) =
            std::process::Command::new("ssh").arg("-G").arg("-F").arg(&path).arg("brca@gate").output()
        else {
            return; // no OpenSSH on this machine
        };
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let said = String::from_utf8(out.stdout).unwrap();
        let has = |line: &str| said.lines().any(|l| l == line);
        assert!(has("hostname 127.0.0.1") && has("port 2222") && has("user brca"), "{said}");
        assert!(has("stricthostkeychecking true") || has("stricthostkeychecking yes"), "{said}");
        assert!(has("identityagent none") && has("identitiesonly yes"), "{said}");
        assert!(said.contains("userknownhostsfile"), "{said}");
    }

    #[test]
    fn hosts_that_would_break_out_are_refused() {
        for good in ["gate.example.org", "127.0.0.1", "::1", "gate_1"] {
            assert!(is_plain_host(good), "{good}");
        }
        for bad in ["", "a b", "a\nHost *", "*", "-oProxyCommand=x", "a,b", "a\"b", "a%h"] {
            assert!(!is_plain_host(bad), "{bad}");
        }
    }
}
