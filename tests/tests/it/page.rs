//! The page that a recording becomes, in a browser without a network.

use std::fs;

use anyhow::{Context, Result, ensure};
use intake::crypt4gh::SecretKey;
use model::SeededEntropy;
use recording::cast::{Header, Term, Writer};
use recording::sealed::Sealer;
use tests::browser::Browser;
use tests::command::run;
use tests::node::binary;

use super::folder;

/// What the terminal shows in the page.
const SHOWN: &str = "document.querySelector('.ap-term-text')?.textContent ?? ''";

/// It plays from its own bytes: text appears, Japanese among it, in as many columns as on a terminal;
/// nothing is asked of a network, and nothing recorded becomes part of the page.
#[test]
fn a_page_plays_in_a_browser_without_a_network() -> Result<()> {
    let dir = folder("page")?;
    let term = Term { cols: 60, rows: 12, kind: Some("xterm-256color".to_owned()) };
    let header = Header { version: 3, term, timestamp: Some(1_800_000_000), command: None, title: None };
    let (mut writer, mut cast) = Writer::begin(&header);
    let hostile = "</script><img src=http://127.0.0.1:9/x onerror=alert(1)>\r\n";
    for (millis, text) in [
        (0, "alice@brca:~$ samtools view -c /data/genome.cram\r\n"),
        (300, "\x1b[32m研究計画\x1b[m|\r\nabcdefgh|\r\n"),
        (600, hostile),
        (1_200, "played-to-the-end\r\n"),
    ] {
        writer.output(millis, text.as_bytes(), &mut cast);
    }
    writer.exit(1_500, Some(0), &mut cast);
    let secret = SecretKey::from_bytes(&[7; 32]);
    let (mut sealer, mut sealed) = Sealer::begin(&secret.public(), &SeededEntropy::new(1))?;
    sealer.seal(cast.as_bytes(), true, &mut sealed);
    fs::write(dir.join("sealed"), &sealed)?;
    fs::write(dir.join("key"), "07".repeat(32))?;
    let page = dir.join("page.html");
    let play = run(binary("sekisho")?).arg("play").arg("--sealed").arg(dir.join("sealed"));
    play.arg("--key").arg(dir.join("key")).arg("--out").arg(&page).go()?.ok()?;

    let mut browser = Browser::new(&dir)?;
    browser.open(&page)?;
    // Before it plays, it shows where it begins.
    let first = browser.until(SHOWN, |text| text.contains("samtools view"))?;
    ensure!(!first.contains("played-to-the-end"), "{first:?}");
    browser.click("#player .ap-player")?;
    let shown = browser.until(SHOWN, |text| text.contains("played-to-the-end"))?;
    ensure!(
        shown.contains("研究計画") && shown.contains("</script><img src=http://127.0.0.1:9/x"),
        "{shown:?}"
    );
    ensure!(browser.value("document.querySelectorAll('img').length")? == 0, "what was recorded is markup");

    // Four wide letters take eight columns, and have glyphs of a font that has them.
    let right = |text: &str| {
        format!(
            "(() => {{ const walker = document.createTreeWalker(document.querySelector('.ap-term-text'), NodeFilter.SHOW_TEXT);
                const range = document.createRange();
                while (walker.nextNode()) {{
                    const at = walker.currentNode.data.indexOf('|');
                    const line = walker.currentNode.parentElement.closest('.ap-line') ?? walker.currentNode.parentElement;
                    if (at >= 0 && line.textContent.startsWith({text})) {{
                        range.setStart(walker.currentNode, at); range.setEnd(walker.currentNode, at + 1);
                        return Math.round(range.getBoundingClientRect().left);
                    }}
                }}
                return null; }})()",
            text = serde_json::json!(text)
        )
    };
    let (wide, narrow) = (browser.value(&right("研究計画"))?, browser.value(&right("abcdefgh"))?);
    let (wide, narrow) = (wide.as_i64().context("no bar")?, narrow.as_i64().context("no bar")?);
    ensure!((wide - narrow).abs() <= 1, "the bars stand at {wide} and {narrow}");
    browser.value(
        "for (const span of document.querySelectorAll('.ap-term-text span'))
            if (span.textContent.includes('研') && !span.querySelector('span')) { span.id = 'wide'; break; }",
    )?;
    let fonts = browser.fonts("#wide")?;
    let plain = browser.fonts("dd")?;
    ensure!(
        fonts.iter().any(|(name, glyphs)| *glyphs > 0 && !plain.iter().any(|(other, _)| other == name)),
        "Japanese is drawn with {fonts:?}, as everything else with {plain:?}: no font here has it"
    );

    let (asked, complained) = browser.asked_and_complained();
    let own = format!("file://{}", page.display());
    let foreign = asked.iter().filter(|url| !url.contains(&own) && !url.starts_with("\"data:"));
    ensure!(foreign.count() == 0, "the page asked for {asked:?}");
    ensure!(complained.is_empty(), "{complained:?}");
    drop(browser);
    fs::remove_dir_all(&dir)?;
    Ok(())
}
