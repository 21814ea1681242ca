//! Lists, as people read them.

use serde_json::Value;

use crate::api::printable;

/// The list in an answer: the answer itself, or the one array in it.
pub fn rows(answer: &Value) -> Option<&Vec<Value>> {
    match answer {
        Value::Array(rows) => Some(rows),
        Value::Object(fields) => {
            let mut arrays = fields.values().filter_map(Value::as_array);
            let first = arrays.next()?;
            arrays.next().is_none().then_some(first)
        }
        _ => None,
    }
}

/// Columns in the order of the first row that has them, with a line of headings.
pub fn render(rows: &[Value]) -> String {
    let mut columns: Vec<&str> = Vec::new();
    for field in rows.iter().filter_map(Value::as_object).flat_map(|row| row.keys()) {
        if !columns.contains(&field.as_str()) {
            columns.push(field);
        }
    }
    let mut lines = vec![columns.iter().map(|c| c.replace('_', " ")).collect::<Vec<_>>()];
    lines.extend(rows.iter().map(|row| columns.iter().map(|c| cell(&row[*c])).collect()));

    let width = |at: usize| lines.iter().map(|line| columns_of(&line[at])).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let mut text = String::new();
    for line in &lines {
        let mut out = String::new();
        for (cell, width) in line.iter().zip(&widths) {
            out += cell;
            out += &" ".repeat(width - columns_of(cell) + 2);
        }
        text += out.trim_end();
        text.push('\n');
    }
    text
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "–".to_owned(),
        Value::String(text) => printable(text),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(", "),
        Value::Object(fields) => {
            // A state comes with what belongs to it: its name first.
            let state = fields.get("state").map(cell).into_iter();
            let rest = fields.iter().filter(|(k, _)| *k != "state");
            state
                .chain(rest.map(|(k, v)| format!("{}={}", printable(k), cell(v))))
                .collect::<Vec<_>>()
                .join(" ")
        }
        other => other.to_string(),
    }
}

/// Columns on a terminal: East Asian characters take two.
fn columns_of(text: &str) -> usize {
    let wide = |c: char| matches!(u32::from(c), 0x1100..=0x115f | 0x2e80..=0xa4cf | 0xac00..=0xd7a3 | 0xf900..=0xfaff | 0xfe30..=0xfe6f | 0xff00..=0xff60 | 0xffe0..=0xffe6 | 0x2_0000..=0x3_fffd);
    text.chars().map(|c| if wide(c) { 2 } else { 1 }).sum()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_line_up_with_japanese_too() {
        let answer = json!({"people": [
            {"id": "u:alice", "name": "山田", "roles": ["role:steward", "role:security"]},
            {"id": "u:bob", "name": "Bob\u{1b}", "locked": null},
        ]});
        let text = render(rows(&answer).unwrap());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "id       name  roles                        locked");
        assert_eq!(lines[1], "u:alice  山田  role:steward, role:security  –");
        assert_eq!(lines[2], "u:bob    Bob   –                            –");
    }

    #[test]
    fn a_state_is_named_before_its_details() {
        assert_eq!(cell(&json!({"at": 1, "state": "stored"})), "stored at=1");
    }

    #[test]
    fn only_a_list_is_a_list() {
        assert!(rows(&json!([1])).is_some());
        assert!(rows(&json!({"a": [], "b": []})).is_none());
        assert!(rows(&json!("x")).is_none());
    }
}
