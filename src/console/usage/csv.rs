//! Usage as CSV (RFC 4180).

use super::RouteUse;

const HEAD: &str = "client,name,route,requests,1xx,2xx,3xx,4xx,5xx,last_used_at\r\n";

pub(super) fn file(rows: &[RouteUse]) -> String {
    let mut text = HEAD.to_owned();
    for row in rows {
        let RouteUse { client, name, route, classes, total, last_used_at } = row;
        let names = [client, name.as_deref().unwrap_or_default(), route].map(cell);
        let counts = [*total].into_iter().chain(*classes).map(|count| count.to_string());
        let cells: Vec<String> = names.into_iter().chain(counts).chain([last_used_at.to_string()]).collect();
        text.push_str(&cells.join(","));
        text.push_str("\r\n");
    }
    text
}

/// Formats a text as a cell. An apostrophe protects values that a spreadsheet would interpret as a formula.
fn cell(text: &str) -> String {
    let guard = if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { "'" } else { "" };
    if text.contains([',', '"', '\r', '\n']) {
        format!("\"{guard}{}\"", text.replace('"', "\"\""))
    } else {
        format!("{guard}{text}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;

    #[test]
    fn cells_are_quoted_where_they_must_be_and_hold_no_formula() {
        for (text, expected) in [
            ("", ""),
            ("plain text", "plain text"),
            ("a,b", "\"a,b\""),
            ("say \"x\"", "\"say \"\"x\"\"\""),
            ("two\r\nlines", "\"two\r\nlines\""),
            ("two\nlines", "\"two\nlines\""),
            ("=1+1", "'=1+1"),
            ("+1", "'+1"),
            ("-1", "'-1"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("\t=1", "'\t=1"),
            ("\r=1", "\"'\r=1\""),
            ("=HYPERLINK(\"http://x\",\"y\")", "\"'=HYPERLINK(\"\"http://x\"\",\"\"y\"\")\""),
            ("a=b", "a=b"),
            ("'x", "'x"),
            (" =1", " =1"),
            ("<script>", "<script>"),
        ] {
            assert_eq!(cell(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_file_has_one_line_for_each_row_after_its_head() {
        assert_eq!(file(&[]), HEAD);
        let row = RouteUse {
            client: "=app".into(),
            name: Some("The \"app\"".into()),
            route: "/a,b".into(),
            classes: [1, 2, 3, 4, 5],
            total: 15,
            last_used_at: Timestamp::from_secs(1_800_000_000),
        };
        let line = "'=app,\"The \"\"app\"\"\",\"/a,b\",15,1,2,3,4,5,2027-01-15T08:00:00.000Z\r\n";
        assert_eq!(file(&[row]), format!("{HEAD}{line}"));
    }
}
