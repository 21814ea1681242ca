use std::fs::{self, File, TryLockError};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use certs::x509::CaCertificate;
use serde::Deserialize;

use crate::api::Url;
use crate::fault::{Exit, Fault};
use crate::home::bad_file;
use crate::say;
use crate::up::Room;

/// The folder of one node.
#[derive(Debug, Clone)]
pub struct Node {
    dir: PathBuf,
}

/// Where the broker listens, as it says itself in `broker/endpoints.json`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Endpoints {
    /// The SSH door, `address:port`.
    pub ssh: String,
    /// The HTTPS API.
    pub api: String,
    /// The agents' door (UDP).
    pub agents: String,
}

impl Node {
    /// The node in a folder, which may be empty still.
    pub fn at(dir: &Path) -> Result<Node, Fault> {
        let dir = std::path::absolute(dir);
        dir.map(|dir| Node { dir }).map_err(|e| Fault::failed("io", say!(CannotRead, path = ".")).because(&e))
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The folder of one process.
    pub fn room(&self, room: Room) -> PathBuf {
        self.dir.join(room.name())
    }

    /// Where the sockets and the numbers of processes are.
    pub fn run(&self) -> PathBuf {
        self.dir.join("run")
    }

    /// Where the standard error of a process goes.
    pub fn log(&self, room: Room) -> PathBuf {
        self.room(room).join("log")
    }

    /// Makes the folders that are missing. Processes under another user reach theirs through the
    /// node's folder, so it can be entered by all; what is in it cannot.
    pub fn make(&self) -> Result<(), Fault> {
        make_dir(&self.dir, 0o711)?;
        let mode = fs::metadata(&self.dir).map_err(|e| cannot_write(&self.dir, &e))?.permissions().mode();
        if mode & 0o011 != 0o011 {
            let entered = fs::Permissions::from_mode(mode & 0o7777 | 0o011);
            fs::set_permissions(&self.dir, entered).map_err(|e| cannot_write(&self.dir, &e))?;
        }
        for room in Room::ALL {
            make_dir(&self.room(room), 0o700)?;
        }
        make_dir(&self.run(), 0o750)
    }

    /// Keeps other supervisors off this folder while the returned file lives.
    pub fn lock(&self) -> Result<File, Fault> {
        let path = self.dir.join("lock");
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(|e| cannot_write(&path, &e))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => {
                let fault =
                    Fault::new(Exit::Unavailable, "running", say!(UpRunning, dir = self.dir.display()));
                Err(fault.todo(say!(UpRunningTodo)))
            }
            Err(TryLockError::Error(e)) => Err(cannot_write(&path, &e)),
        }
    }

    /// Where the broker listens.
    pub fn endpoints(&self) -> Result<Endpoints, Fault> {
        let path = self.room(Room::Broker).join("endpoints.json");
        let cannot = |e: &(dyn std::error::Error + 'static)| {
            Fault::new(Exit::Unavailable, "not_running", say!(CannotRead, path = path.display()))
                .because(e)
                .todo(say!(UnreachableTodo))
        };
        let text = fs::read_to_string(&path).map_err(|e| cannot(&e))?;
        serde_json::from_str(&text).map_err(|e| bad_file(&path).because(&e))
    }

    /// The API's address on this machine.
    pub fn api_url(&self) -> Result<Url, Fault> {
        let api = self.endpoints()?.api;
        // A door that is open on every address is open here.
        let here = api.replace("0.0.0.0:", "127.0.0.1:").replace("[::]:", "[::1]:");
        Url::parse(&format!("https://{here}"))
    }

    /// The authority of the node's certificates, which its agent has met when it enrolled.
    pub fn authority(&self) -> Result<CaCertificate, Fault> {
        let path = self.room(Room::Agent).join("ca.pem");
        let text = fs::read_to_string(&path)
            .map_err(|e| Fault::failed("io", say!(CannotRead, path = path.display())).because(&e))?;
        CaCertificate::from_pem(&text).map_err(|e| bad_file(&path).because(&e))
    }
}

fn make_dir(path: &Path, mode: u32) -> Result<(), Fault> {
    fs::DirBuilder::new().recursive(true).mode(mode).create(path).map_err(|e| cannot_write(path, &e))
}

pub(super) fn cannot_write(path: &Path, error: &std::io::Error) -> Fault {
    Fault::failed("io", say!(CannotWrite, path = path.display())).because(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_supervisor_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let node = Node::at(dir.path()).unwrap();
        node.make().unwrap();
        let held = node.lock().unwrap();
        assert_eq!(node.lock().unwrap_err().exit, Exit::Unavailable);
        drop(held);
        node.lock().unwrap();
    }

    #[test]
    fn the_folder_can_be_passed_through_and_not_looked_into() {
        let dir = tempfile::tempdir().unwrap();
        let node = Node::at(&dir.path().join("n")).unwrap();
        node.make().unwrap();
        let mode = |p: &Path| fs::metadata(p).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(node.dir()), 0o711);
        assert_eq!(mode(&node.room(Room::Signer)), 0o700);
        fs::set_permissions(node.dir(), fs::Permissions::from_mode(0o700)).unwrap();
        node.make().unwrap();
        assert_eq!(mode(node.dir()), 0o711);
    }

    #[test]
    fn the_api_is_where_the_broker_says() {
        let dir = tempfile::tempdir().unwrap();
        let node = Node::at(dir.path()).unwrap();
        node.make().unwrap();
        assert!(node.api_url().is_err());
        let said = r#"{"ssh":"0.0.0.0:2222","api":"0.0.0.0:8443","agents":"0.0.0.0:8444"}"#;
        fs::write(node.room(Room::Broker).join("endpoints.json"), said).unwrap();
        assert_eq!(node.api_url().unwrap().to_string(), "https://127.0.0.1:8443");
    }
}
