use std::error::Error;
use std::fmt;

use crate::words::{Key, Lang, fill};

/// How the program ends; the numbers follow sysexits(3) where it has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: done.
    Done,
    /// 1: it did not work, and trying the same again will not help by itself.
    Failed,
    /// 2: the command line makes no sense.
    Usage,
    /// 69: something it needs did not answer; trying again later may help.
    Unavailable,
    /// 77: understood, and refused.
    Refused,
}

impl Exit {
    /// The process's exit code.
    pub fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Unavailable => 69,
            Exit::Refused => 77,
        }
    }
}

/// What went wrong, for the person in front of it: what happened, why, and what to do.
#[derive(Debug)]
pub struct Fault {
    /// How the program ends.
    pub exit: Exit,
    /// A stable word for programs: the server's code, or this program's own.
    pub code: String,
    what: Message,
    todo: Option<Message>,
    why: Option<String>,
}

/// A sentence of the word table with its values.
#[derive(Debug, Clone)]
pub struct Message {
    key: Key,
    values: Vec<(&'static str, String)>,
}

impl Message {
    /// The sentence in a language.
    pub fn text(&self, lang: Lang) -> String {
        fill(self.key.text(lang), &self.values)
    }
}

/// A sentence with `name = value` pairs for its placeholders.
#[macro_export]
macro_rules! say {
    ($key:ident $(, $name:ident = $value:expr)* $(,)?) => {
        $crate::fault::Message::new($crate::words::Key::$key, vec![$((stringify!($name), ($value).to_string())),*])
    };
}

impl Message {
    /// A sentence from its key and the values of its placeholders; see [`say!`].
    pub fn new(key: Key, values: Vec<(&'static str, String)>) -> Message {
        Message { key, values }
    }
}

impl Fault {
    /// A fault with what happened.
    pub fn new(exit: Exit, code: &str, what: Message) -> Fault {
        Fault { exit, code: code.to_owned(), what, todo: None, why: None }
    }

    /// Something did not work.
    pub fn failed(code: &str, what: Message) -> Fault {
        Fault::new(Exit::Failed, code, what)
    }

    /// The command line makes no sense.
    pub fn usage(what: Message) -> Fault {
        Fault::new(Exit::Usage, "usage", what)
    }

    /// Adds what to do.
    pub fn todo(mut self, todo: Message) -> Fault {
        self.todo = Some(todo);
        self
    }

    /// Adds the reason in somebody else's words.
    pub fn why(mut self, why: impl fmt::Display) -> Fault {
        self.why = Some(why.to_string());
        self
    }

    /// Adds an error and everything that caused it as the reason.
    pub fn because(self, error: &(dyn Error + 'static)) -> Fault {
        let why = chain(error);
        self.why(why)
    }

    /// The lines shown on a terminal.
    pub fn text(&self, lang: Lang) -> String {
        let mut text = format!("sekisho: {}", self.what.text(lang));
        if let Some(why) = &self.why {
            text += &format!("\n  {}: {why}", Key::WhyLabel.text(lang));
        }
        if let Some(todo) = &self.todo {
            text += &format!("\n  {}: {}", Key::TodoLabel.text(lang), todo.text(lang));
        }
        text
    }

    /// The same for programs.
    pub fn json(&self, lang: Lang) -> serde_json::Value {
        serde_json::json!({"error": {
            "code": self.code,
            "message": self.what.text(lang),
            "why": self.why,
            "todo": self.todo.as_ref().map(|m| m.text(lang)),
        }})
    }
}

/// An error and its causes on one line, without saying anything twice.
pub fn chain(error: &(dyn Error + 'static)) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_says_what_why_and_what_to_do() {
        let fault = Fault::new(Exit::Unavailable, "unreachable", say!(Unreachable, at = "https://gate:8443"))
            .why("connection refused")
            .todo(say!(UnreachableTodo));
        let text = fault.text(Lang::En);
        assert!(text.starts_with("sekisho: "), "{text}");
        assert!(text.contains("https://gate:8443") && text.contains("connection refused"), "{text}");
        assert_eq!(text.lines().count(), 3);
        assert_eq!(fault.json(Lang::Ja)["error"]["code"], "unreachable");
        assert_eq!(fault.exit.code(), 69);
    }

    #[test]
    fn causes_are_told_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer: inner")]
        struct Outer(#[source] Inner);
        #[derive(Debug, thiserror::Error)]
        #[error("inner")]
        struct Inner;
        assert_eq!(chain(&Outer(Inner)), "outer: inner");
    }
}
