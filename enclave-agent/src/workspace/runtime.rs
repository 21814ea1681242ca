//! The operator's OCI runtime, `runc` unless configured otherwise.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

/// How long the runtime may take for one thing.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where the runtime is and where it keeps its state.
#[derive(Debug, Clone)]
pub struct Runtime {
    /// The program, a path or a name to be found in `PATH`.
    pub program: PathBuf,
    /// Its state directory.
    pub root: PathBuf,
}

/// Why the runtime did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// It could not be run.
    #[error("the runtime {program} could not be run; is it installed?")]
    Run {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It failed.
    #[error("the runtime failed: {message}")]
    Failed {
        /// What it said.
        message: String,
    },
    /// It did not finish in time.
    #[error("the runtime did not finish within {} s", PATIENCE.as_secs())]
    Slow,
}

impl Runtime {
    /// Starts a container that has `stdin` as its standard input; answers the host's number of
    /// its PID 1.
    pub async fn run(&self, bundle: &Path, id: &str, stdin: OwnedFd) -> Result<i32, RuntimeError> {
        let pid_file = bundle.join("pid");
        let log = bundle.join("log");
        let open = |path: &Path| {
            std::fs::File::create(path)
                .map_err(|source| RuntimeError::Run { program: self.program.clone(), source })
        };
        let output = open(&log)?;
        let error = output
            .try_clone()
            .map_err(|source| RuntimeError::Run { program: self.program.clone(), source })?;
        let mut command = self.command();
        command
            .args(["run", "--detach", "--bundle"])
            .arg(bundle)
            .arg("--pid-file")
            .arg(&pid_file)
            .arg(id)
            .stdin(Stdio::from(stdin))
            .stdout(output)
            .stderr(error);
        let status = self.wait(command.status()).await?;
        let said = || tail(&std::fs::read_to_string(&log).unwrap_or_default());
        if !status.success() {
            return Err(RuntimeError::Failed { message: said() });
        }
        std::fs::read_to_string(&pid_file)
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .ok_or_else(|| RuntimeError::Failed { message: format!("it names no process: {}", said()) })
    }

    /// Kills a container and forgets it; one that is not there is fine.
    pub async fn delete(&self, id: &str) -> Result<(), RuntimeError> {
        let mut command = self.command();
        command.args(["delete", "--force", id]).stdin(Stdio::null());
        let output = self.wait(command.output()).await?;
        if output.status.success() {
            Ok(())
        } else {
            Err(RuntimeError::Failed { message: tail(&String::from_utf8_lossy(&output.stderr)) })
        }
    }

    /// The containers the runtime knows of.
    pub async fn list(&self) -> Result<Vec<String>, RuntimeError> {
        let mut command = self.command();
        command.args(["list", "--quiet"]).stdin(Stdio::null());
        let output = self.wait(command.output()).await?;
        Ok(String::from_utf8_lossy(&output.stdout).split_whitespace().map(str::to_owned).collect())
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(&self.root).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.kill_on_drop(true);
        command
    }

    async fn wait<T>(&self, work: impl Future<Output = io::Result<T>>) -> Result<T, RuntimeError> {
        match tokio::time::timeout(PATIENCE, work).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(source)) => Err(RuntimeError::Run { program: self.program.clone(), source }),
            Err(_) => Err(RuntimeError::Slow),
        }
    }
}

/// The end of what a program said, short enough for a log line.
fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.trim().lines().rev().take(3).collect();
    let joined = lines.into_iter().rev().collect::<Vec<_>>().join("; ");
    joined.chars().take(600).collect()
}
