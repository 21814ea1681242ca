use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use model::{PersonId, Timestamp};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::fault::Fault;
use crate::say;

/// No file kept here comes near this.
const FILE_MAX: u64 = 1 << 20;

/// This device's folder of keys and certificates.
#[derive(Debug, Clone)]
pub struct Home {
    dir: PathBuf,
}

/// What the last login was; kept beside its certificates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// The broker's API.
    pub api: String,
    /// Who.
    pub person: PersonId,
    /// Host of the SSH door.
    pub ssh_host: String,
    /// Its port.
    pub ssh_port: u16,
    /// When the certificates end.
    pub expires: Timestamp,
}

/// Who may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Its owner alone.
    Private,
    /// Everybody.
    Public,
}

impl Home {
    /// The device's private SSH key (OpenSSH format).
    pub const SSH_KEY: &str = "id_ed25519";
    /// Its public half.
    pub const SSH_PUBLIC: &str = "id_ed25519.pub";
    /// Its certificate.
    pub const SSH_CERTIFICATE: &str = "id_ed25519-cert.pub";
    /// The private key of the device's TLS identity (PKCS #8 PEM).
    pub const TLS_KEY: &str = "tls-key.pem";
    /// Its certificate (PEM).
    pub const TLS_CERTIFICATE: &str = "tls-cert.pem";
    /// The authority that everything of the broker's is checked against (PEM).
    pub const CA: &str = "ca.pem";
    /// Host keys for OpenSSH.
    pub const KNOWN_HOSTS: &str = "known_hosts";
    /// Configuration for OpenSSH.
    pub const SSH_CONFIG: &str = "ssh_config";
    /// What the last login was.
    pub const PROFILE: &str = "profile.toml";

    /// The folder that is named, or `.sekisho` in the home directory.
    pub fn locate(named: Option<PathBuf>, user_home: Option<PathBuf>) -> Result<Home, Fault> {
        let dir = match (named, user_home) {
            (Some(dir), _) if !dir.as_os_str().is_empty() => dir,
            (_, Some(home)) if home.is_absolute() => home.join(".sekisho"),
            _ => return Err(Fault::usage(say!(NoHome)).todo(say!(NoHomeTodo))),
        };
        // OpenSSH takes relative paths of its configuration from elsewhere.
        let dir = std::path::absolute(&dir).map_err(|e| read_fault(&dir).because(&e))?;
        Ok(Home { dir })
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The path of a file here.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Reads a file, if there is one. It goes to memory that is wiped, whatever it is.
    pub fn read(&self, name: &str) -> Result<Option<Zeroizing<String>>, Fault> {
        let path = self.path(name);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(read_fault(&path).because(&error)),
        };
        let metadata = file.metadata().map_err(|e| read_fault(&path).because(&e))?;
        let secret = name == Self::SSH_KEY || name == Self::TLS_KEY;
        if secret && metadata.mode() & 0o077 != 0 {
            let shown = path.display();
            return Err(
                Fault::failed("key_open", say!(TooOpen, path = shown)).todo(say!(TooOpenTodo, path = shown))
            );
        }
        if metadata.len() > FILE_MAX {
            return Err(bad_file(&path));
        }
        let mut text =
            Zeroizing::new(String::with_capacity(usize::try_from(metadata.len()).unwrap_or(0) + 1));
        (&mut file).take(FILE_MAX).read_to_string(&mut text).map_err(|e| read_fault(&path).because(&e))?;
        Ok(Some(text))
    }

    /// Writes a file so that after a crash either the old or the new one is there.
    pub fn write(&self, name: &str, text: &str, mode: Mode) -> Result<(), Fault> {
        make_private_dir(&self.dir)?;
        write_file(&self.path(name), text.as_bytes(), mode)
    }

    /// What the last login was.
    pub fn profile(&self) -> Result<Option<Profile>, Fault> {
        let Some(text) = self.read(Self::PROFILE)? else { return Ok(None) };
        toml::from_str(&text).map(Some).map_err(|e| bad_file(&self.path(Self::PROFILE)).because(&e))
    }

    /// Keeps what this login was. Written last: it vouches for the other files.
    pub fn keep_profile(&self, profile: &Profile) -> Result<(), Fault> {
        let text = toml::to_string(profile).map_err(|e| bad_file(&self.path(Self::PROFILE)).because(&e))?;
        self.write(Self::PROFILE, &text, Mode::Public)
    }
}

/// The fault of a file that cannot be made sense of.
pub fn bad_file(path: &Path) -> Fault {
    Fault::failed("damaged", say!(BadFile, path = path.display())).todo(say!(BadFileTodo))
}

fn read_fault(path: &Path) -> Fault {
    Fault::failed("io", say!(CannotRead, path = path.display()))
}

fn write_fault(path: &Path) -> Fault {
    Fault::failed("io", say!(CannotWrite, path = path.display()))
}

/// Makes a folder that only its owner enters; one that is there keeps its mode.
pub fn make_private_dir(dir: &Path) -> Result<(), Fault> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|e| write_fault(dir).because(&e))
}

/// Writes beside, syncs, renames: after a crash either the old or the new file is there.
pub fn write_file(path: &Path, bytes: &[u8], mode: Mode) -> Result<(), Fault> {
    let write = || -> std::io::Result<()> {
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("file");
        let dir = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let beside = dir.join(format!(".{name}.{}", std::process::id()));
        // One that an earlier process of this number left would keep its own mode.
        match fs::remove_file(&beside) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let bits = match mode {
            Mode::Private => 0o600,
            Mode::Public => 0o644,
        };
        let mut file = OpenOptions::new().write(true).create_new(true).mode(bits).open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        File::open(dir)?.sync_all()
    };
    write().map_err(|e| write_fault(path).because(&e))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::words::Lang;

    fn home() -> (tempfile::TempDir, Home) {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::locate(Some(dir.path().join("h")), None).unwrap();
        (dir, home)
    }

    #[test]
    fn keys_are_for_their_owner_alone() {
        let (_dir, home) = home();
        home.write(Home::SSH_KEY, "secret", Mode::Private).unwrap();
        let mode = |p: &Path| fs::metadata(p).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&home.path(Home::SSH_KEY)), 0o600);
        assert_eq!(mode(&home.dir), 0o700);
        assert_eq!(home.read(Home::SSH_KEY).unwrap().unwrap().as_str(), "secret");

        fs::set_permissions(home.path(Home::SSH_KEY), fs::Permissions::from_mode(0o640)).unwrap();
        let fault = home.read(Home::SSH_KEY).unwrap_err().text(Lang::En);
        assert!(fault.contains("chmod 600"), "{fault}");
    }

    #[test]
    fn a_second_write_replaces_the_first_and_leaves_nothing_beside() {
        let (_dir, home) = home();
        home.write(Home::CA, "one", Mode::Public).unwrap();
        home.write(Home::CA, "two", Mode::Public).unwrap();
        assert_eq!(home.read(Home::CA).unwrap().unwrap().as_str(), "two");
        assert_eq!(fs::read_dir(&home.dir).unwrap().count(), 1);
    }

    #[test]
    fn the_profile_survives() {
        let (_dir, home) = home();
        assert!(home.profile().unwrap().is_none());
        let profile = Profile {
            api: "https://localhost:8443".to_owned(),
            person: "u:alice".parse().unwrap(),
            ssh_host: "127.0.0.1".to_owned(),
            ssh_port: 2222,
            expires: Timestamp::from_secs(1_800_000_000),
        };
        home.keep_profile(&profile).unwrap();
        assert_eq!(home.profile().unwrap(), Some(profile));
        home.write(Home::PROFILE, "nonsense", Mode::Public).unwrap();
        assert!(home.profile().is_err());
    }

    #[test]
    fn without_a_home_there_is_advice() {
        assert!(Home::locate(None, None).unwrap_err().text(Lang::En).contains("SEKISHO_HOME"));
        assert!(
            Home::locate(Some(PathBuf::new()), Some("/home/a".into()))
                .unwrap()
                .path("x")
                .ends_with(".sekisho/x")
        );
    }
}
