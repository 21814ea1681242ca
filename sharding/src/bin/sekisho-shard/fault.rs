//! What goes wrong, and how it is told: what happened, why, and what to do.

use std::error::Error;
use std::fmt;

use serde_json::{Map, Value, json};
use sharding::vault::{self, DepositError, ReadError, RefreshError};

use crate::out::{Out, fault_json};
use crate::say;
use crate::words::{Key, Lang, Message};

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: done.
    Done,
    /// 1: it did not work.
    Failed,
    /// 2: the command line makes no sense.
    Usage,
    /// 3: too few good shares.
    TooFew,
    /// 4: readable, but shares are damaged or missing.
    Damaged,
    /// 5: not done, because it was not confirmed or would harm.
    NotDone,
}

impl Exit {
    /// The process's exit code.
    pub fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::TooFew => 3,
            Exit::Damaged => 4,
            Exit::NotDone => 5,
        }
    }
}

/// What went wrong.
#[derive(Debug)]
pub struct Failure {
    /// How the program ends.
    pub exit: Exit,
    /// A stable word for programs.
    code: &'static str,
    what: Box<Message>,
    why: Vec<Why>,
    todo: Option<Box<Message>>,
    /// More for programs.
    fields: Map<String, Value>,
}

#[derive(Debug)]
enum Why {
    Words(Message),
    /// Somebody else's words.
    Text(String),
    Fault(vault::Fault),
}

impl Failure {
    /// What happened.
    pub fn new(exit: Exit, code: &'static str, what: Message) -> Failure {
        Failure { exit, code, what: Box::new(what), why: Vec::new(), todo: None, fields: Map::new() }
    }

    /// It did not work.
    pub fn failed(code: &'static str, what: Message) -> Failure {
        Failure::new(Exit::Failed, code, what)
    }

    /// The command line makes no sense.
    pub fn usage(what: Message) -> Failure {
        Failure::new(Exit::Usage, "usage", what)
    }

    /// A mistake of this program.
    pub fn defect(error: &(dyn Error + 'static)) -> Failure {
        Failure::failed("defect", say!(Defect)).because(error).todo(say!(DefectTodo))
    }

    /// Adds what to do.
    pub fn todo(mut self, todo: Message) -> Failure {
        self.todo = Some(Box::new(todo));
        self
    }

    /// Adds a reason.
    pub fn why(mut self, why: Message) -> Failure {
        self.why.push(Why::Words(why));
        self
    }

    /// Adds an error and everything that caused it as a reason.
    pub fn because(mut self, error: &(dyn Error + 'static)) -> Failure {
        self.why.push(Why::Text(chain(error)));
        self
    }

    /// Adds a field for programs.
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Failure {
        self.fields.insert(name.to_owned(), value.into());
        self
    }

    /// The lines shown on a terminal.
    pub fn text(&self, out: &Out) -> String {
        let mut text = format!("sekisho-shard: {}", out.text(&self.what));
        for why in &self.why {
            text += &format!("\n  {}: {}", Key::WhyLabel.text(out.lang), why.text(out));
        }
        if let Some(todo) = &self.todo {
            text += &format!("\n  {}: {}", Key::TodoLabel.text(out.lang), out.text(todo));
        }
        text
    }

    /// The same for programs.
    pub fn json(&self, out: &Out) -> Value {
        let why: Vec<String> = self.why.iter().map(|why| why.text(out)).collect();
        let mut error = json!({"code": self.code, "message": out.text(&self.what), "why": why,
            "todo": self.todo.as_ref().map(|todo| out.text(todo))});
        if let Value::Object(error) = &mut error {
            error.extend(self.fields.clone());
        }
        json!({"error": error})
    }

    fn faults(mut self, faults: Vec<vault::Fault>) -> Failure {
        let told: Vec<Value> = faults.iter().map(fault_json).collect();
        self.why.extend(faults.into_iter().map(Why::Fault));
        self.with("folders", told)
    }
}

impl Why {
    fn text(&self, out: &Out) -> String {
        match self {
            Why::Words(message) => out.text(message),
            Why::Text(text) => text.clone(),
            Why::Fault(fault) => out.fault_text(fault),
        }
    }
}

/// For messages of tests and logs.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what.text(Lang::En))
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Failure {
        match error {
            ReadError::NoManifest { object, faults } => {
                Failure::new(Exit::TooFew, "no_manifest", say!(NoManifest, object = object))
                    .faults(faults)
                    .todo(say!(NoManifestTodo))
            }
            ReadError::TooFew { object, needed, good, faults } => {
                let what = say!(TooFew, needed = needed, object = object, good = good);
                Failure::new(Exit::TooFew, "too_few", what)
                    .faults(faults)
                    .with("needed", needed)
                    .with("good", good)
                    .todo(say!(TooFewTodo))
            }
            ReadError::Forged { object, block } => {
                Failure::failed("forged", say!(Forged, block = block, object = object))
                    .with("block", block)
                    .todo(say!(ForgedTodo))
            }
            error @ (ReadError::TooLong | ReadError::Interrupted) => Failure::defect(&error),
        }
    }
}

impl From<DepositError> for Failure {
    fn from(error: DepositError) -> Failure {
        match error {
            DepositError::Source(source) => Failure::failed("source", say!(SourceBroke)).because(&source),
            DepositError::Object(error) => Failure::from(*error),
            DepositError::TooLarge => Failure::failed("too_large", say!(TooLarge)).todo(say!(TooLargeTodo)),
            DepositError::Entropy(error) => Failure::failed("entropy", say!(NoEntropy)).because(&error),
            DepositError::Backend { institution, source, .. } => {
                Failure::failed("refused", say!(BackendRefused, folder = institution)).because(&source)
            }
            DepositError::Timeout { institution, .. } => {
                Failure::failed("silent", say!(BackendSilent, folder = institution))
            }
            DepositError::NothingToResume { set, needed, good, .. } => {
                Failure::failed("nothing_to_resume", say!(NothingToResume, set = set))
                    .why(say!(NothingToResumeWhy, needed = needed, good = good))
                    .with("needed", needed)
                    .with("good", good)
                    .todo(say!(NothingToResumeTodo))
            }
            error @ (DepositError::ReadOnly | DepositError::Codec(_) | DepositError::Interrupted) => {
                Failure::defect(&error)
            }
        }
    }
}

impl From<RefreshError> for Failure {
    fn from(error: RefreshError) -> Failure {
        match error {
            RefreshError::Open(error) => Failure::from(*error),
            RefreshError::KeysAlone => {
                Failure::new(Exit::Usage, "keys_alone", say!(OnlyKeys)).todo(say!(OnlyKeysTodo))
            }
            RefreshError::Deposit(error) => Failure::from(*error),
            RefreshError::Unsound { found } => {
                let faults = found.backends.into_iter().flat_map(|state| state.first).collect();
                Failure::failed("unsound", say!(Unsound)).faults(faults).todo(say!(UnsoundTodo))
            }
        }
    }
}

/// An error and its causes on one line, without saying anything twice.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}
