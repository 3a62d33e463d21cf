//! Formats text in columns for a terminal, and JSON documents as rows of them. Does not know the meaning of a document.

use serde_json::Value;

/// Formats rows as lines; every column is as wide as its widest cell, with two spaces between columns.
pub(super) fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Formats an array of documents as a table of these members, with a header; `None` if the array is empty.
pub(super) fn documents<const N: usize>(array: &Value, members: [&str; N]) -> Option<String> {
    let array = array.as_array().filter(|array| !array.is_empty())?;
    let mut rows = vec![members.map(|member| member.replace('_', " ").to_uppercase())];
    rows.extend(array.iter().map(|document| members.map(|member| cell(&document[member]))));
    Some(columns(&rows).trim_end().to_owned())
}

/// Formats these members of a document, one line each.
pub(super) fn details(document: &Value, members: &[&str]) -> String {
    let row = |member: &&str| [member.replace('_', " "), cell(&document[*member])];
    columns(&members.iter().map(row).collect::<Vec<_>>()).trim_end().to_owned()
}

/// Formats a value of a document as text; `-` for null. Control characters are escaped: names come from
/// outside, and a terminal would interpret them.
pub(super) fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) if text.chars().any(char::is_control) => text.escape_debug().to_string(),
        Value::String(text) => text.clone(),
        Value::Array(values) if values.is_empty() => "-".to_owned(),
        Value::Array(values) => values.iter().map(cell).collect::<Vec<_>>().join(", "),
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["METHOD", "PATH"], ["GET", "/é"], ["any", ""]].map(|row| row.map(str::to_owned));
        assert_eq!(columns(&rows), "METHOD  PATH\nGET     /é\nany\n");
        assert_eq!(columns::<2>(&[]), "");
    }

    #[test]
    fn documents_are_rows_under_the_names_of_their_members() {
        let list = json!([{"id": "a", "role_version": 12, "roles": ["x", "y"]}, {"id": "bcd", "roles": []}]);
        let members = ["id", "roles", "role_version"];
        let table = "ID   ROLES  ROLE VERSION\na    x, y   12\nbcd  -      -";
        assert_eq!(documents(&list, members).as_deref(), Some(table));
        assert_eq!(documents(&json!([]), members), None);
        assert_eq!(details(&list[0], &members), "id            a\nroles         x, y\nrole version  12");
        assert_eq!(cell(&json!("a\u{1b}[2Jé\n")), "a\\u{1b}[2Jé\\n", "nothing that a terminal obeys");
    }
}
