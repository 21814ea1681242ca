//! Sizes and numbers as people write them.

use std::time::Duration;

use clap::Args;

/// What a study lets its people use; what is not named stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[group(id = "of_a_study")]
pub struct Limits {
    /// Processors of one workspace: 2, or 0.5.
    #[arg(long, value_name = "NUMBER", value_parser = cpus)]
    pub cpus: Option<u64>,
    /// Memory of one workspace: 4GiB, 512MiB.
    #[arg(long, value_name = "SIZE", value_parser = mib)]
    pub memory: Option<u64>,
    /// Size of the home of one workspace: 20GiB.
    #[arg(long, value_name = "SIZE", value_parser = mib)]
    pub disk: Option<u64>,
    /// Processes and threads of one workspace.
    #[arg(long, value_name = "NUMBER")]
    pub processes: Option<u64>,
    /// How long a workspace stays when nobody is in it: 30m, 12h.
    #[arg(long, value_name = "DURATION", value_parser = span)]
    pub idle: Option<u64>,
    /// Workspaces of one person in the study.
    #[arg(long, value_name = "NUMBER")]
    pub workspaces: Option<u64>,
    /// Sessions of one person in the study at once; forwarded ports do not count.
    #[arg(long, value_name = "NUMBER")]
    pub sessions: Option<u64>,
}

/// One workspace.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct WorkspaceOf {
    /// The study.
    pub study: String,
    /// The workspace.
    #[arg(default_value = model::WorkspaceName::MAIN)]
    pub workspace: model::WorkspaceName,
    /// Whose, if not your own.
    #[arg(long)]
    pub person: Option<String>,
}

impl Limits {
    /// Those that are named, by the names that the broker knows.
    pub fn named(&self) -> Vec<(&'static str, u64)> {
        let all = [
            ("cpus", self.cpus),
            ("memory", self.memory),
            ("disk", self.disk),
            ("processes", self.processes),
            ("idle", self.idle),
            ("workspaces", self.workspaces),
            ("sessions", self.sessions),
        ];
        all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }
}

/// A limit as people read it.
pub fn shown(name: &str, value: u64) -> String {
    match name {
        "cpus" => format!("{}", value as f64 / 100.0),
        "memory" | "disk" if value.is_multiple_of(1024) => format!("{} GiB", value >> 10),
        "memory" | "disk" => format!("{value} MiB"),
        "idle" if value.is_multiple_of(3600) => format!("{} h", value / 3600),
        "idle" if value.is_multiple_of(60) => format!("{} min", value / 60),
        "idle" => format!("{value} s"),
        _ => value.to_string(),
    }
}

/// Hundredths of a processor.
fn cpus(text: &str) -> Result<u64, String> {
    let number: f64 =
        text.parse().map_err(|_| "write a number of processors, such as 2 or 0.5".to_owned())?;
    let hundredths = (number * 100.0).round();
    if (1.0..=1e6).contains(&hundredths) {
        // It is whole, and in a range that has no gaps.
        Ok(hundredths as u64)
    } else {
        Err("that is no number of processors".to_owned())
    }
}

/// MiB.
fn mib(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim().to_ascii_lowercase().as_str() {
        "m" | "mib" | "mb" => 1,
        "g" | "gib" | "gb" => 1 << 10,
        "t" | "tib" | "tb" => 1 << 20,
        _ => return Err("write a size with its unit, such as 512MiB or 20GiB".to_owned()),
    };
    let number: u64 = number.parse().map_err(|_| "write a whole number and its unit".to_owned())?;
    number.checked_mul(factor).ok_or_else(|| "that is too large".to_owned())
}

/// Seconds.
fn span(text: &str) -> Result<u64, String> {
    let words = || "write a number of seconds, minutes or hours, such as 90s, 30m or 12h".to_owned();
    let (number, unit) = match text.as_bytes().last() {
        Some(b's') => (&text[..text.len() - 1], 1),
        Some(b'm') => (&text[..text.len() - 1], 60),
        Some(b'h') => (&text[..text.len() - 1], 3600),
        _ => return Err(words()),
    };
    let number: u32 = number.parse().map_err(|_| words())?;
    Ok(Duration::from_secs(u64::from(number) * unit).as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_go_both_ways() {
        assert_eq!((mib("4GiB"), mib("512M"), mib("1t")), (Ok(4096), Ok(512), Ok(1 << 20)));
        assert_eq!((cpus("2"), cpus("0.5")), (Ok(200), Ok(50)));
        assert_eq!((span("30m"), span("12h"), span("5s")), (Ok(1800), Ok(43_200), Ok(5)));
        for bad in ["", "4", "GiB", "-1GiB", "99999999999999999999TiB", "4 parsecs"] {
            assert!(mib(bad).is_err(), "{bad}");
        }
        for bad in ["", "0", "-1", "NaN", "inf", "two"] {
            assert!(cpus(bad).is_err(), "{bad}");
        }
        for bad in ["", "5", "m", "5d", "\u{3042}m"] {
            assert!(span(bad).is_err(), "{bad}");
        }
        let shown = |name, value| super::shown(name, value);
        assert_eq!(shown("cpus", 150), "1.5");
        assert_eq!((shown("memory", 4096), shown("disk", 1000)), ("4 GiB".into(), "1000 MiB".into()));
        assert_eq!((shown("idle", 1800), shown("idle", 7200)), ("30 min".into(), "2 h".into()));
    }
}
