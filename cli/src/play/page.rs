//! A recording as a page that needs nothing else: no network, no other file.
//!
//! The player is asciinema's (`assets/asciinema-player`). The recording lies in the page as data, and
//! the page's own policy (CSP) lets nothing run but the two scripts it was written with, by their
//! hashes, and lets nothing be fetched.

use data_encoding::BASE64;
use model::Timestamp;
use sha2::{Digest, Sha256};

use crate::words::{Key, Lang};

const PLAYER: &str = include_str!("../../assets/asciinema-player/asciinema-player.min.js");
const PLAYER_STYLE: &str = include_str!("../../assets/asciinema-player/asciinema-player.css");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// What stands beside the recording.
pub(super) struct About<'a> {
    pub(super) session: &'a str,
    pub(super) command: Option<String>,
    pub(super) begun: Option<Timestamp>,
    pub(super) hash: String,
    pub(super) idle: Option<f64>,
    pub(super) speed: f64,
    pub(super) at: u64,
    /// Columns and rows.
    pub(super) size: (u16, u16),
}

/// How wide a letter of a terminal is, and how high its line, to the size of the font.
const LETTER: (f64, f64) = (0.6, 4.0 / 3.0);

/// The page.
pub(super) fn page(about: &About<'_>, cast: &[u8], lang: Lang) -> String {
    let policy = format!(
        "default-src 'none'; script-src 'sha256-{}' 'sha256-{}' 'wasm-unsafe-eval'; style-src 'unsafe-inline'; font-src data:; img-src data:; base-uri 'none'; form-action 'none'",
        hash(PLAYER),
        hash(SCRIPT),
    );
    let title = format!("Sekisho · {}", about.session);
    let options = serde_json::json!({
        "idleTimeLimit": about.idle,
        "speed": about.speed,
        "startAt": about.at / 1000,
    });
    // How wide the terminal is to its height: with it the style keeps all of it on the screen.
    let (cols, rows) = (f64::from(about.size.0.max(1)), f64::from(about.size.1.max(1)));
    let shape = cols * LETTER.0 / (rows * LETTER.1);
    let mut facts = String::new();
    let mut fact = |name: Key, value: &str| {
        facts += &format!("<dt>{}</dt><dd>{}</dd>\n", escaped(name.text(lang)), escaped(value));
    };
    fact(Key::PageSession, about.session);
    if let Some(begun) = about.begun {
        fact(Key::PageBegun, &begun.to_string());
    }
    if let Some(command) = &about.command {
        fact(Key::PageCommand, command);
    }
    fact(Key::PageHash, &about.hash);
    format!(
        "<!doctype html>\n<html lang=\"{lang}\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{policy}\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"referrer\" content=\"no-referrer\">\n\
         <title>{title}</title>\n<style>{PLAYER_STYLE}</style>\n<style>{STYLE}</style>\n</head>\n<body>\n\
         <main>\n<h1>{heading}</h1>\n<dl>\n{facts}</dl>\n<div id=\"player\" style=\"--shape: {shape:.3}\"></div>\n\
         <p>{keys}</p>\n<p class=\"note\">{note}</p>\n</main>\n\
         <script type=\"application/json\" id=\"options\">{options}</script>\n\
         <script type=\"application/x-asciicast\" id=\"cast\">{cast}</script>\n\
         <script>{PLAYER}</script>\n<script>{SCRIPT}</script>\n</body>\n</html>\n",
        lang = if lang == Lang::Ja { "ja" } else { "en" },
        title = escaped(&title),
        heading = escaped(Key::PageHeading.text(lang)),
        keys = escaped(Key::PageKeys.text(lang)),
        note = escaped(Key::PageNote.text(lang)),
        options = data(&options.to_string()),
        cast = data(&String::from_utf8_lossy(cast)),
    )
}

/// As a policy names a script: by the Base64 of its SHA-256.
fn hash(script: &str) -> String {
    BASE64.encode(&Sha256::digest(script))
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

/// JSON within a script element that is data. `<` stands in strings alone there, where it may be
/// written so; as it is, it could end the element.
fn data(json: &str) -> String {
    json.replace('<', "\\u003c")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_recorded_ends_up_as_markup() {
        let cast = "{\"version\":3,\"term\":{\"cols\":80,\"rows\":24},\"title\":\"</script><script>alert(1)</script>\"}\n\
            [0.1, \"o\", \"</script><img src=x onerror=alert(2)><!--<script>\"]\n";
        let about = About {
            session: "abc",
            command: Some("<b>&\"'".to_owned()),
            begun: Some(Timestamp::from_secs(0)),
            hash: "00".to_owned(),
            idle: Some(2.0),
            speed: 1.0,
            at: 90_000,
            size: (80, 24),
        };
        for lang in [Lang::En, Lang::Ja] {
            let page = page(&about, cast.as_bytes(), lang);
            assert!(!page.contains("alert(1)</script>") && !page.contains("<img"), "markup");
            assert!(page.contains("\\u003cimg src=x") && page.contains("&lt;b&gt;&amp;&quot;&#39;"));
            // The scripts that run are the two that the policy names, and they end where they should.
            assert_eq!(page.matches("<script>").count(), 2);
            assert_eq!(page.matches("</script>").count(), 4);
            for script in [PLAYER, SCRIPT] {
                assert!(page.contains(&format!("'sha256-{}'", hash(script))));
                assert!(!script.contains("</script"), "it would end early");
            }
            assert!(!PLAYER_STYLE.contains("</style") && !PLAYER_STYLE.contains("@import"));
            assert!(!PLAYER_STYLE.contains("url(http") && !PLAYER_STYLE.contains("url(//"));
        }
    }
}
