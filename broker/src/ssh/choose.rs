//! Which workspace is meant, when the user name does not say: the only one there is, or the one that
//! the person chooses from a list. Plain lines, so that every terminal shows them.

use std::sync::{Arc, OnceLock};

use audit::{Event, EventKind};
use bytes::Bytes;
use gate::{Entry, Refusal, Target};
use model::{PersonId, StudyId, WorkspaceName};

use super::Services;
use super::input::{Input, InputBuffer};
use super::screen::Screen;

/// Exit status when it is not clear what is asked for (`EX_USAGE`).
const USAGE: u8 = 64;
/// Exit status when something needed does not answer (`EX_UNAVAILABLE`).
const UNAVAILABLE: u8 = 69;
/// Exit status of an interrupt.
const INTERRUPTED: u8 = 130;
/// Choices that are shown; whoever has more names the one they mean.
const SHOWN: usize = 30;
/// How often an answer may make no sense.
const TRIES: u32 = 5;
/// The longest answer, in characters.
const ANSWER: usize = 64;

/// What a user name asks for.
#[derive(Debug, Clone)]
pub(crate) enum Asked {
    /// `study` or `study+workspace`.
    Named(Target),
    /// Nobody in particular, or the person themselves: whatever they have.
    Own {
        /// What was chosen in this connection, once it was.
        chosen: Arc<OnceLock<Target>>,
        /// A study of the same name as the person, who may mean it.
        study: Option<StudyId>,
    },
}

/// Takes a user name apart; nothing, if it can name no workspace.
pub(crate) fn parse(user: &str, person: &PersonId) -> Option<Asked> {
    if user.is_empty() || user == person.name() {
        let study = StudyId::from_name(user).ok();
        return Some(Asked::Own { chosen: Arc::default(), study });
    }
    target(user).map(Asked::Named)
}

fn target(name: &str) -> Option<Target> {
    let (study, workspace) = match name.split_once('+') {
        Some((study, workspace)) => (study, workspace.parse().ok()?),
        None => (name, WorkspaceName::default()),
    };
    Some(Target { study: StudyId::from_name(study).ok()?, workspace })
}

/// What came of looking for the one that is meant.
pub(crate) enum Found {
    /// This one.
    One(Target),
    /// One of these.
    Several(Vec<Target>),
    /// The person is in no study.
    None,
}

impl Asked {
    /// The study to which a refusal belongs, as far as that is known yet.
    pub(crate) fn study(&self) -> Option<&StudyId> {
        match self {
            Asked::Named(target) => Some(&target.study),
            Asked::Own { chosen, .. } => chosen.get().map(|target| &target.study),
        }
    }

    /// Looks for the one that is meant, without asking anybody.
    pub(crate) async fn find(&self, services: &Services, person: &PersonId) -> Result<Found, Refusal> {
        let (chosen, study) = match self {
            Asked::Named(target) => return Ok(Found::One(target.clone())),
            Asked::Own { chosen, study } => (chosen, study),
        };
        if let Some(target) = chosen.get() {
            return Ok(Found::One(target.clone()));
        }
        let mut choices = services.gate.choices(person).await?;
        if let Some(study) = study
            && choices.iter().any(|choice| choice.study == *study)
        {
            return Ok(Found::One(Target { study: study.clone(), workspace: WorkspaceName::default() }));
        }
        Ok(match choices.len() {
            0 => Found::None,
            1 => choices.pop().map_or(Found::None, Found::One),
            _ => Found::Several(choices),
        })
    }
}

/// The workspace that is meant, or nothing once the person has been told why there is none.
pub(crate) async fn settle(
    services: &Services,
    entry: &Entry,
    asked: &Asked,
    screen: &Screen,
    input: &InputBuffer,
    words: Words,
) -> Option<Target> {
    match asked.find(services, &entry.person).await {
        Ok(Found::One(target)) => Some(target),
        Ok(Found::Several(choices)) => {
            let chosen = if words.terminal {
                ask(screen, input, &choices, words).await
            } else {
                let text = words.ambiguous(&choices);
                refused(services, entry, "ambiguous-workspace", &text).await;
                screen.fail(&text, USAGE).await.ok();
                None
            };
            if let (Some(target), Asked::Own { chosen, .. }) = (&chosen, asked) {
                let _ = chosen.set(target.clone());
            }
            chosen
        }
        Ok(Found::None) => {
            let text = words.nothing();
            refused(services, entry, "no-study", text).await;
            screen.fail(text, USAGE).await.ok();
            None
        }
        Err(refusal) => {
            screen.fail(&refusal.message, UNAVAILABLE).await.ok();
            None
        }
    }
}

/// Adds to a refusal which studies the person could have meant.
pub(crate) async fn with_advice(services: &Services, person: &PersonId, refusal: Refusal) -> Refusal {
    if refusal.code != "not-a-member" {
        return refusal;
    }
    match services.gate.choices(person).await {
        Ok(choices) if !choices.is_empty() => {
            let message = format!("{} You have: {}.", refusal.message, names(&choices));
            Refusal { message, ..refusal }
        }
        _ => refusal,
    }
}

/// Shows the choices and takes an answer: a number, or a name.
async fn ask(screen: &Screen, input: &InputBuffer, choices: &[Target], words: Words) -> Option<Target> {
    let mut shown = format!("{}\r\n", words.which());
    for (number, choice) in choices.iter().take(SHOWN).enumerate() {
        shown.push_str(&format!("  {:>2}  {choice}\r\n", number + 1));
    }
    if choices.len() > SHOWN {
        shown.push_str(&format!("      … {}\r\n", choices.len()));
    }
    screen.stdout(Bytes::from(shown)).await.ok()?;
    for _ in 0..TRIES {
        screen.stdout(Bytes::from(format!("{} ", words.prompt()))).await.ok()?;
        let Some(answer) = line(screen, input).await else {
            screen.fail(words.gave_up(), INTERRUPTED).await.ok();
            return None;
        };
        if let Some(choice) = choose(choices, &answer) {
            return Some(choice.clone());
        }
        screen.stdout(Bytes::from(format!("{}\r\n", words.again()))).await.ok()?;
    }
    screen.fail(words.gave_up(), USAGE).await.ok();
    None
}

fn choose<'a>(choices: &'a [Target], answer: &str) -> Option<&'a Target> {
    let answer = answer.trim();
    match answer.parse::<usize>() {
        Ok(number) => number.checked_sub(1).and_then(|at| choices.get(at)),
        Err(_) => choices.iter().find(|choice| choice.to_string() == answer),
    }
}

/// One line of what is typed, shown as it comes; nothing if the person gives up.
async fn line(screen: &Screen, input: &InputBuffer) -> Option<String> {
    let mut text = String::new();
    loop {
        let piece = match input.next().await {
            Input::Data(piece) => piece,
            // The session's first size counts; what comes meanwhile is set again by the client's next.
            Input::Resize(size) => {
                input.resize_later(size);
                continue;
            }
            Input::Signal(_) => continue,
            Input::Eof | Input::Closed => return None,
        };
        for (at, byte) in piece.iter().enumerate() {
            match byte {
                b'\r' | b'\n' => {
                    // What was typed ahead is for the shell.
                    input.put_back(piece.slice(at + 1..));
                    screen.stdout(Bytes::from_static(b"\r\n")).await.ok()?;
                    return Some(text);
                }
                3 | 4 => return None,
                8 | 127 if text.pop().is_some() => {
                    screen.stdout(Bytes::from_static(b"\x08 \x08")).await.ok()?;
                }
                byte if byte.is_ascii_graphic() && text.len() < ANSWER => {
                    text.push(char::from(*byte));
                    screen.stdout(piece.slice(at..=at)).await.ok()?;
                }
                _ => {}
            }
        }
    }
}

fn names(choices: &[Target]) -> String {
    let shown: Vec<String> = choices.iter().take(SHOWN).map(Target::to_string).collect();
    shown.join(", ")
}

async fn refused(services: &Services, entry: &Entry, code: &str, reason: &str) {
    let kind = EventKind::SessionRefused { code: code.to_owned(), reason: reason.to_owned() };
    let event = Event {
        person: Some(entry.person.clone()),
        device: Some(entry.key_fingerprint.clone()),
        peer: entry.peer.map(|peer| peer.to_string()),
        ..Event::new(services.gate.now(), kind)
    };
    if let Err(refusal) = services.gate.record(&event).await {
        tracing::error!(code = %refusal.code, "a refusal could not be recorded");
    }
}

/// How to speak to the person.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Words {
    /// Whether they sit at a terminal.
    pub(crate) terminal: bool,
    japanese: bool,
}

impl Words {
    /// As the variables of their environment say.
    pub(crate) fn of(terminal: bool, env: &[(String, String)]) -> Words {
        let get = |name: &str| {
            let found = env.iter().find(|(key, _)| key == name);
            found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
        };
        let said = get("LC_ALL").or_else(|| get("LC_MESSAGES")).or_else(|| get("LANG"));
        Words { terminal, japanese: said.is_some_and(|value| value.starts_with("ja")) }
    }

    fn of_both(self, english: &'static str, japanese: &'static str) -> &'static str {
        if self.japanese { japanese } else { english }
    }

    fn which(self) -> &'static str {
        self.of_both("Which workspace?", "どのワークスペースに接続しますか。")
    }

    fn prompt(self) -> &'static str {
        self.of_both("Number:", "番号:")
    }

    fn again(self) -> &'static str {
        self.of_both(
            "That is none of them. Type its number, or its name.",
            "該当がありません。番号か名前を入力してください。",
        )
    }

    fn gave_up(self) -> &'static str {
        self.of_both("No workspace was chosen.", "ワークスペースは選択されませんでした。")
    }

    fn nothing(self) -> &'static str {
        self.of_both(
            "You are a member of no study that is open; ask a data steward to add you to yours.",
            "参加中の研究課題がありません。データ管理者に登録を依頼してください。",
        )
    }

    fn ambiguous(self, choices: &[Target]) -> String {
        let (names, first) = (names(choices), choices.first().map(Target::to_string).unwrap_or_default());
        if self.japanese {
            format!("ワークスペースが複数あります: {names}。ssh {first}@gate のように指定してください。")
        } else {
            format!("You have several workspaces: {names}. Name one, such as ssh {first}@gate.")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn person() -> PersonId {
        PersonId::from_name("alice").unwrap()
    }

    #[test]
    fn a_user_name_says_what_is_meant() {
        let named = |user: &str| match parse(user, &person()) {
            Some(Asked::Named(target)) => target.to_string(),
            Some(Asked::Own { study, .. }) => format!("own {study:?}"),
            None => "nothing".to_owned(),
        };
        assert_eq!(named("brca"), "brca");
        assert_eq!(named("brca+main"), "brca");
        assert_eq!(named("brca+big"), "brca+big");
        assert_eq!(named(""), "own None");
        assert!(named("alice").starts_with("own Some"));
        for bad in ["brca+", "+big", "brca+a/b", "brca+a+b", "BRCA", "brca big", "../x", "研究"] {
            assert_eq!(named(bad), "nothing", "{bad}");
        }
    }

    #[test]
    fn an_answer_is_a_number_or_a_name() {
        let all: Vec<Target> = ["brca", "brca+big", "heart"].map(|name| target(name).unwrap()).to_vec();
        let chosen = |answer: &str| choose(&all, answer).map(Target::to_string);
        assert_eq!(chosen("2"), Some("brca+big".to_owned()));
        assert_eq!(chosen(" heart "), Some("heart".to_owned()));
        for bad in ["", "0", "4", "-1", "lung", "99999999999999999999"] {
            assert_eq!(chosen(bad), None, "{bad}");
        }
    }

    #[test]
    fn people_are_spoken_to_in_their_language() {
        let of = |env: &[(&str, &str)]| {
            let env: Vec<_> = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            Words::of(true, &env).japanese
        };
        assert!(of(&[("LANG", "ja_JP.UTF-8")]));
        assert!(!of(&[("LANG", "ja_JP.UTF-8"), ("LC_ALL", "en_GB.UTF-8")]));
        assert!(of(&[("LANG", "ja_JP.UTF-8"), ("LC_ALL", "")]));
        assert!(!of(&[]));
    }
}
