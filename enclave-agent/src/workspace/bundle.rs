//! What the OCI runtime is told: a root file system of almost nothing, and `config.json`.
//!
//! The root holds mount points and a generated `/etc`; programs come from the host's `/usr`, read
//! only. Everything a person can write to is the home, bound from the agent's directory, and
//! tmpfs with a size limit.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use model::{PersonId, StudyId, WorkspaceLimits, WorkspaceName};
use serde_json::{Value, json};

use crate::init_protocol::{FIRST_HOST_ID, INIT, USER_ID};

/// The system-call filter. Each entry says what it is for; `profile/README.md` says the rest.
pub const SECCOMP: &str = include_str!("../../profile/seccomp.json");
/// Parts of the host's `/etc` that programs in `/usr` link to, where they exist.
const HOST_ETC: [&str; 5] = ["alternatives", "fonts", "R", "perl", "python3"];
const HOST_IDS: u32 = 65_536;

/// Who and what a workspace is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner {
    /// The study.
    pub study: StudyId,
    /// The person.
    pub person: PersonId,
    /// Which of theirs.
    pub workspace: WorkspaceName,
}

impl Owner {
    /// The person's home, as seen in the workspace.
    pub fn home(&self) -> String {
        format!("/home/{}", self.person.name())
    }
}

/// What a workspace may use at most.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Memory in MiB, with everything in `/tmp`, `/run` and `/dev/shm`.
    pub memory_mib: u64,
    /// Processes and threads.
    pub processes: u64,
    /// Processor time in hundredths of one processor.
    pub cpu_percent: u64,
    /// Size of `/tmp` in MiB.
    pub tmp_mib: u64,
    /// Size of the home in MiB.
    pub disk_mib: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { memory_mib: 4096, processes: 512, cpu_percent: 400, tmp_mib: 1024, disk_mib: 100 << 10 }
    }
}

impl Limits {
    /// What a workspace gets that a study gives `asked`: no more than this host has for any.
    pub fn narrowed(&self, asked: &WorkspaceLimits) -> Limits {
        Limits {
            memory_mib: self.memory_mib.min(asked.memory_mib),
            processes: self.processes.min(asked.processes),
            cpu_percent: self.cpu_percent.min(asked.cpu_percent),
            tmp_mib: self.tmp_mib.min(asked.memory_mib),
            disk_mib: self.disk_mib.min(asked.disk_mib),
        }
    }
}

/// A bundle to be written.
#[derive(Debug)]
pub struct Bundle<'a> {
    /// Its directory; it exists and is empty but for mount points.
    pub dir: &'a Path,
    /// Whom it is for.
    pub owner: &'a Owner,
    /// Its limits.
    pub limits: &'a Limits,
    /// The person's home on the host.
    pub home: &'a Path,
    /// Where the datasets are mounted on the host.
    pub data: &'a Path,
    /// The program that becomes PID 1.
    pub init: &'a Path,
    /// The control group, from the root of each hierarchy.
    pub cgroup: &'a str,
    /// The socket to which calls are notified, if they are.
    pub calls: Option<&'a Path>,
}

impl Bundle<'_> {
    /// Writes the root file system and `config.json`.
    pub fn write(&self) -> io::Result<()> {
        self.write_root()?;
        fs::write(self.dir.join("config.json"), serde_json::to_vec(&self.spec()?).map_err(io::Error::other)?)
    }

    fn root(&self) -> PathBuf {
        self.dir.join("rootfs")
    }

    fn write_root(&self) -> io::Result<()> {
        let root = self.root();
        for dir in ["usr", "etc", "proc", "dev", "tmp", "run", "data", ".sekisho"] {
            make_dir(&root.join(dir), 0o755)?;
        }
        // The runtime gives what it mounts here the mode of the directory it finds.
        make_dir(&root.join("tmp"), 0o1777)?;
        make_dir(&root.join(self.owner.home().trim_start_matches('/')), 0o755)?;
        for name in ["bin", "sbin", "lib", "lib32", "lib64", "libx32"] {
            if Path::new("/usr").join(name).exists() {
                symlink(Path::new("usr").join(name), root.join(name))?;
            }
        }
        fs::write(root.join(INIT.trim_start_matches('/')), b"")?;
        let (name, home) = (self.owner.person.name(), self.owner.home());
        let files = [
            (
                "passwd",
                format!(
                    "root:x:0:0:root:/:/usr/sbin/nologin\n\
                     {name}:x:{USER_ID}:{USER_ID}:{name}:{home}:/bin/bash\n\
                     nobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n"
                ),
            ),
            ("group", format!("root:x:0:\ntty:x:5:\n{name}:x:{USER_ID}:\nnogroup:x:65534:\n")),
            ("hosts", format!("127.0.0.1 localhost {host}\n::1 localhost\n", host = self.hostname())),
            (
                "nsswitch.conf",
                "passwd: files\ngroup: files\nhosts: files\nservices: files\nprotocols: files\n".into(),
            ),
            ("hostname", format!("{}\n", self.hostname())),
            ("profile", PROFILE.into()),
        ];
        for (file, content) in files {
            let path = root.join("etc").join(file);
            fs::write(&path, content)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
        }
        if Path::new("/etc/ld.so.cache").exists() {
            fs::copy("/etc/ld.so.cache", root.join("etc/ld.so.cache"))?;
        }
        symlink("/proc/self/mounts", root.join("etc/mtab"))?;
        for name in host_etc() {
            make_dir(&root.join("etc").join(name), 0o755)?;
        }
        Ok(())
    }

    fn hostname(&self) -> &str {
        self.owner.study.name()
    }

    fn spec(&self) -> io::Result<Value> {
        let mut seccomp: Value = serde_json::from_str(SECCOMP).map_err(io::Error::other)?;
        if let Some(calls) = self.calls {
            crate::watch::notify(&mut seccomp, calls);
        }
        let capabilities = [
            "CAP_SETUID",
            "CAP_SETGID",
            "CAP_SETPCAP",
            "CAP_KILL",
            "CAP_DAC_READ_SEARCH",
            "CAP_SYS_RESOURCE",
        ];
        let ids = json!([{ "containerID": 0, "hostID": FIRST_HOST_ID, "size": HOST_IDS }]);
        let namespaces: Vec<Value> = ["pid", "network", "ipc", "uts", "mount", "user", "cgroup"]
            .iter()
            .map(|kind| json!({ "type": kind }))
            .collect();
        Ok(json!({
            "ociVersion": "1.0.2",
            "process": {
                "terminal": false,
                "user": { "uid": 0, "gid": 0 },
                "args": [INIT],
                "env": ["PATH=/usr/bin:/bin"],
                "cwd": "/",
                "capabilities": {
                    "bounding": capabilities, "effective": capabilities, "permitted": capabilities,
                    "inheritable": [], "ambient": [],
                },
                "rlimits": [{ "type": "RLIMIT_CORE", "hard": 0, "soft": 0 }],
                "noNewPrivileges": true,
            },
            "root": { "path": "rootfs", "readonly": true },
            "hostname": self.hostname(),
            "mounts": self.mounts(),
            "linux": {
                "uidMappings": ids, "gidMappings": ids,
                "namespaces": namespaces,
                "cgroupsPath": self.cgroup,
                "resources": self.resources(),
                "rootfsPropagation": "private",
                "seccomp": seccomp,
                "maskedPaths": [
                    "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                    "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi",
                    "/proc/interrupts", "/proc/kallsyms", "/proc/modules",
                ],
                "readonlyPaths": [
                    "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger",
                ],
            },
        }))
    }

    fn mounts(&self) -> Value {
        let bind = |source: &Path, to: &str, options: &[&str]| json!({ "destination": to, "type": "bind", "source": source, "options": options });
        let tmpfs = |to: &str, options: &[&str], mib: u64| {
            let mut options: Vec<String> = options.iter().map(|o| (*o).to_owned()).collect();
            options.push(format!("size={mib}m"));
            json!({ "destination": to, "type": "tmpfs", "source": "tmpfs", "options": options })
        };
        let mut mounts = vec![
            bind(Path::new("/usr"), "/usr", &["rbind", "ro", "nosuid", "nodev"]),
            bind(self.init, INIT, &["bind", "ro", "nosuid", "nodev"]),
            json!({ "destination": "/proc", "type": "proc", "source": "proc",
                    "options": ["nosuid", "noexec", "nodev"] }),
            tmpfs("/dev", &["nosuid", "noexec", "strictatime", "mode=755"], 1),
            json!({ "destination": "/dev/pts", "type": "devpts", "source": "devpts",
                    "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"] }),
            tmpfs("/dev/shm", &["nosuid", "noexec", "nodev", "mode=1777"], self.limits.tmp_mib),
            tmpfs("/tmp", &["nosuid", "nodev", "mode=1777"], self.limits.tmp_mib),
            tmpfs("/run", &["nosuid", "nodev", "noexec", "mode=755"], 16),
            bind(self.home, &self.owner.home(), &["bind", "rw", "nosuid", "nodev", "private"]),
            bind(self.data, "/data", &["bind", "ro", "nosuid", "nodev", "noexec", "private"]),
        ];
        for name in host_etc() {
            let path = Path::new("/etc").join(name);
            mounts.push(bind(&path, &path.to_string_lossy(), &["bind", "ro", "nosuid", "nodev", "noexec"]));
        }
        Value::Array(mounts)
    }

    fn resources(&self) -> Value {
        const PERIOD: u64 = 100_000;
        json!({
            "devices": [{ "allow": false, "access": "rwm" }],
            "memory": { "limit": self.limits.memory_mib << 20 },
            "pids": { "limit": self.limits.processes },
            "cpu": { "period": PERIOD, "quota": self.limits.cpu_percent * PERIOD / 100 },
        })
    }
}

/// Makes a directory with exactly this mode; one that exists gets the mode.
pub fn make_dir(path: &Path, mode: u32) -> io::Result<()> {
    fs::create_dir_all(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

const PROFILE: &str = "\
export PATH=/usr/local/bin:/usr/bin:/bin
if [ -n \"$BASH_VERSION\" ]; then
  PS1='\\u@\\h:\\w\\$ '
fi
";

fn host_etc() -> impl Iterator<Item = &'static str> {
    HOST_ETC.into_iter().filter(|name| Path::new("/etc").join(name).is_dir())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(profile: &Value) -> &Vec<Value> {
        profile["syscalls"].as_array().unwrap()
    }

    fn allows(profile: &Value, call: &str, args: &[u64]) -> bool {
        let holds = |condition: &Value| {
            let value = args.get(condition["index"].as_u64().unwrap() as usize).copied().unwrap_or(0);
            let first = condition["value"].as_u64().unwrap();
            match condition["op"].as_str().unwrap() {
                "SCMP_CMP_EQ" => value == first,
                "SCMP_CMP_MASKED_EQ" => value & first == condition["valueTwo"].as_u64().unwrap(),
                other => panic!("{other}"),
            }
        };
        rules(profile).iter().any(|rule| {
            rule["action"] == "SCMP_ACT_ALLOW"
                && rule["names"].as_array().unwrap().iter().any(|name| name == call)
                && rule["args"].as_array().is_none_or(|conditions| conditions.iter().all(holds))
        })
    }

    #[test]
    fn the_filter_allows_by_name_and_refuses_the_rest() {
        let profile: Value = serde_json::from_str(SECCOMP).unwrap();
        assert_eq!(profile["defaultAction"], "SCMP_ACT_ERRNO");
        for call in ["read", "openat", "execve", "wait4", "futex"] {
            assert!(allows(&profile, call, &[]), "{call}");
        }
        for call in [
            "mount",
            "unshare",
            "setns",
            "ptrace",
            "bpf",
            "keyctl",
            "io_uring_setup",
            "userfaultfd",
            "clone3",
        ] {
            assert!(!allows(&profile, call, &[]), "{call}");
        }
    }

    #[test]
    fn the_filter_looks_at_arguments_where_they_matter() {
        let profile: Value = serde_json::from_str(SECCOMP).unwrap();
        let (tiocsti, tioclinux) = (0x5412, 0x541c);
        assert!(!allows(&profile, "ioctl", &[0, tiocsti]));
        assert!(!allows(&profile, "ioctl", &[0, tioclinux]));
        // The kernel looks at 32 bits only, and so must the filter.
        assert!(!allows(&profile, "ioctl", &[0, tiocsti | 1 << 40]));
        for other in [0x5401, 0x5413, 0x5414, 0x541b, 0x541d, 0x540e, 0x5421, 0, 0xffff_ffff, 0x8004_5430] {
            assert!(allows(&profile, "ioctl", &[0, other]), "{other:#x}");
        }
        assert!(allows(&profile, "clone", &[0x003d_0f00]), "a thread");
        assert!(!allows(&profile, "clone", &[0x1000_0011]), "a user namespace");
        assert!(allows(&profile, "socket", &[1, 1, 0]));
        assert!(allows(&profile, "socket", &[16, 3, 0]));
        for (family, protocol) in [(16, 9), (17, 0), (38, 0), (40, 0), (44, 0)] {
            assert!(!allows(&profile, "socket", &[family, 3, protocol]), "family {family}");
        }
    }

    #[test]
    fn no_call_is_both_allowed_outright_and_by_argument() {
        // An unconditional rule would swallow the conditional ones.
        let profile: Value = serde_json::from_str(SECCOMP).unwrap();
        let names = |with: bool| {
            rules(&profile)
                .iter()
                .filter(move |rule| rule.get("args").is_some() == with)
                .flat_map(|rule| rule["names"].as_array().unwrap().clone())
                .collect::<Vec<_>>()
        };
        let outright = names(false);
        assert!(names(true).iter().all(|name| !outright.contains(name)));
        let mut once = outright.iter().map(Value::to_string).collect::<Vec<_>>();
        let all = once.len();
        once.sort();
        once.dedup();
        assert_eq!(once.len(), all, "a call is named twice");
    }
}
