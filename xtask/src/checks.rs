use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::arrows;

/// How a check went.
enum Outcome {
    Passed,
    Failed(String),
    NotChecked(String),
}

/// Runs every check and then says how each went; fails if one failed.
pub fn ci(checks: bool, tests: bool) -> Result<()> {
    let mut outcomes: Vec<(&str, Outcome, Duration)> = Vec::new();
    let mut note = |name, check: &dyn Fn() -> Outcome| {
        println!("== {name}");
        let started = Instant::now();
        let outcome = check();
        outcomes.push((name, outcome, started.elapsed()));
    };
    if checks {
        note("formatting", &|| cargo(&["fmt", "--all", "--check"]));
        note("arrows", &|| {
            arrows::run().map_or_else(|e| Outcome::Failed(format!("{e:#}")), |()| Outcome::Passed)
        });
        note("clippy", &|| {
            cargo(&["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"])
        });
        note("dependencies", &dependencies);
        note("advisories", &advisories);
    }
    if tests {
        note("tests", &|| cargo(&["nextest", "run", "--locked", "--workspace", "--no-fail-fast"]));
    }
    println!("==");
    let mut failed = 0;
    for (name, outcome, took) in &outcomes {
        let (verdict, why) = match outcome {
            Outcome::Passed => ("passed", String::new()),
            Outcome::Failed(why) => {
                failed += 1;
                ("FAILED", format!(": {why}"))
            }
            Outcome::NotChecked(why) => ("NOT CHECKED", format!(": {why}")),
        };
        println!("{name:>14} {verdict} ({:.0} s){why}", took.as_secs_f64());
    }
    if failed > 0 {
        bail!("{failed} of {} checks failed", outcomes.len());
    }
    Ok(())
}

/// Checks dependencies alone; without cargo-deny it fails.
pub fn deny() -> Result<()> {
    for check in [dependencies, advisories] {
        match check() {
            Outcome::Passed => {}
            Outcome::Failed(why) => bail!(why),
            Outcome::NotChecked(why) => {
                if !has_deny() {
                    bail!(why);
                }
                println!("xtask: not checked: {why}");
            }
        }
    }
    Ok(())
}

/// Licences, bans and sources: these need nothing but the lock file and the crates' own texts.
fn dependencies() -> Outcome {
    if !has_deny() {
        return Outcome::NotChecked(
            "cargo-deny is not installed (cargo install cargo-deny --locked), so licences, bans and sources were not looked at"
                .to_owned(),
        );
    }
    cargo(&["deny", "--offline", "--locked", "check", "bans", "licenses", "sources"])
}

/// Known vulnerabilities: with a database that can be fetched, else with the one fetched before.
fn advisories() -> Outcome {
    if !has_deny() {
        return Outcome::NotChecked(
            "cargo-deny is not installed (cargo install cargo-deny --locked), so known vulnerabilities were not looked for"
                .to_owned(),
        );
    }
    if fetch() {
        return cargo(&["deny", "--locked", "check", "advisories"]);
    }
    if fetched_before() {
        println!("xtask: the advisory database cannot be fetched: an older copy is used");
        return cargo(&["deny", "--locked", "check", "--disable-fetch", "advisories"]);
    }
    Outcome::NotChecked(
        "the advisory database (github.com/rustsec/advisory-db) cannot be fetched from here and no copy is present"
            .to_owned(),
    )
}

fn has_deny() -> bool {
    quiet(&["deny", "--version"])
}

fn fetch() -> bool {
    quiet(&["deny", "fetch", "db"])
}

/// cargo-deny keeps databases in the cargo home.
fn fetched_before() -> bool {
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")));
    let Some(home) = home else { return false };
    ["advisory-dbs", "advisory-db"].iter().any(|name| {
        std::fs::read_dir(home.join(name))
            .is_ok_and(|mut entries| entries.any(|entry| entry.is_ok_and(|e| e.path().is_dir())))
    })
}

/// Runs cargo, showing what it says.
fn cargo(args: &[&str]) -> Outcome {
    let said = format!("cargo {}", args.join(" "));
    match start(args).status().with_context(|| said.clone()) {
        Ok(status) if status.success() => Outcome::Passed,
        Ok(status) => Outcome::Failed(format!("`{said}` ended with {status}")),
        Err(error) => Outcome::Failed(format!("{error:#}")),
    }
}

fn quiet(args: &[&str]) -> bool {
    start(args).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

fn start(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).stdin(Stdio::null());
    // What `cargo run` told this program about itself. A build script that looks at such a variable
    // (ring's does) would be run anew, and with it all that speaks TLS would be compiled twice.
    for (name, _) in std::env::vars_os() {
        if name
            .to_str()
            .is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_"))
        {
            command.env_remove(name);
        }
    }
    command
}
