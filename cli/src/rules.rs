//! `sekisho rules`: Sigma rules, read as a node reads them.

use std::path::Path;

use serde_json::{Value, json};
use siem::detect::{RuleError, RuleSet, Source, read_folder};

use crate::args::Rules;
use crate::fault::Fault;
use crate::words::Lang;
use crate::{Surroundings, say, table};

/// Checks or lists rules; nothing is asked of any node.
pub fn rules(around: &Surroundings, command: &Rules) -> Result<(), Fault> {
    match command {
        Rules::Check { folder } => check(around, folder),
        Rules::List { folder } => list(around, folder.as_deref()),
    }
}

fn check(around: &Surroundings, folder: &Path) -> Result<(), Fault> {
    let set = load(Some(folder))?;
    let files = read_folder(folder).map_err(|e| refused(&e))?;
    let reporting = set.infos().filter(|info| info.reports);
    let own = reporting.filter(|info| files.iter().any(|text| text.name == info.file)).count();
    let rest = set.len() - own;
    if around.json {
        let answer =
            json!({"good": true, "set": set.hash(), "rules": own, "files": files.len(), "builtin": rest});
        around.print_json(&answer);
    } else {
        around.print(&say!(RulesGood, rules = own, files = files.len(), builtin = rest, set = set.hash()));
    }
    Ok(())
}

fn list(around: &Surroundings, folder: Option<&Path>) -> Result<(), Fault> {
    let set = load(folder)?;
    if around.json {
        let rules: Vec<_> = set.infos().filter(|info| info.reports).collect();
        around.print_json(&json!({"set": set.hash(), "rules": rules}));
        return Ok(());
    }
    let title = |info: &siem::detect::RuleInfo| match (around.lang, &info.title_ja) {
        (Lang::Ja, Some(title)) => title.clone(),
        _ => info.title.clone(),
    };
    let row = |info: &siem::detect::RuleInfo| -> Value {
        json!({
            "name": info.name.as_ref().unwrap_or(&info.id),
            "level": info.level,
            "title": title(info),
            "file": info.file,
        })
    };
    let mut rows: Vec<Value> = set.infos().filter(|info| info.reports).map(row).collect();
    rows.sort_by(|a, b| {
        (a["file"].as_str(), a["name"].as_str()).cmp(&(b["file"].as_str(), b["name"].as_str()))
    });
    around.line(table::render(&rows).trim_end());
    Ok(())
}

fn load(folder: Option<&Path>) -> Result<RuleSet, Fault> {
    if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
        return Err(Fault::usage(say!(NoRules, folder = folder.display())));
    }
    let source = Source { folder: folder.map(Path::to_owned), builtin: true };
    source.load().map_err(|e| refused(&e))
}

fn refused(error: &RuleError) -> Fault {
    Fault::failed("rules_refused", say!(RulesBad)).because(error).todo(say!(RulesBadTodo))
}
