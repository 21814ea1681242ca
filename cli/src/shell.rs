use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use model::{StudyId, WorkspaceName};

use crate::fault::{Exit, Fault};
use crate::home::Home;
use crate::{Surroundings, args, login, say};

/// `sekisho ssh`: becomes the stock OpenSSH client. It returns only when that cannot be started.
pub async fn ssh(around: &Surroundings, home: &Home, args: &args::Ssh) -> Result<(), Fault> {
    let arguments = arguments(home, args)?;
    login::fresh(around, home).await?;
    let error = Command::new("ssh").args(arguments).exec();
    Err(Fault::new(Exit::Unavailable, "no_ssh", say!(NoSsh)).because(&error).todo(say!(NoSshTodo)))
}

fn arguments(home: &Home, args: &args::Ssh) -> Result<Vec<OsString>, Fault> {
    let name = args.study.strip_prefix(StudyId::PREFIX).unwrap_or(&args.study);
    // A checked name: it cannot be taken for an option.
    let bad =
        |e: &(dyn std::error::Error + 'static)| Fault::usage(say!(BadName, text = args.study)).because(e);
    let (name, workspace) = match name.split_once('+') {
        Some((name, workspace)) => (name, Some(workspace.parse::<WorkspaceName>().map_err(|e| bad(&e))?)),
        None => (name, None),
    };
    let study = StudyId::from_name(name).map_err(|e| bad(&e))?;
    let workspace = workspace.map(|workspace| format!("+{workspace}")).unwrap_or_default();
    let mut all: Vec<OsString> = vec!["-F".into(), home.path(Home::SSH_CONFIG).into()];
    all.push(format!("{}{workspace}@gate", study.name()).into());
    if !args.command.is_empty() {
        all.push("--".into());
        all.extend(args.command.iter().map(OsString::from));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openssh_gets_the_study_as_user_and_the_command_as_it_is() {
        let home = Home::locate(Some("/h".into()), None).unwrap();
        let ask = |study: &str, command: &[&str]| {
            let command = command.iter().map(|s| (*s).to_owned()).collect();
            arguments(&home, &args::Ssh { study: study.to_owned(), command })
        };
        let words = ask("study:brca", &["ls", "-l", "a b"]).unwrap();
        assert_eq!(words, ["-F", "/h/ssh_config", "brca@gate", "--", "ls", "-l", "a b"]);
        assert_eq!(ask("brca", &[]).unwrap().len(), 3);
        assert_eq!(ask("brca+big", &[]).unwrap()[2], "brca+big@gate");
        assert!(ask("-oProxyCommand=x", &[]).is_err());
        assert!(ask("brca+-x", &[]).is_err());
    }
}
