//! Rows of text in columns, for a person at a terminal.

/// Pads every column to its widest cell, two spaces apart; a line per row, without trailing spaces.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["METHOD", "PATH"], ["GET", "/é"], ["any", ""]].map(|row| row.map(str::to_owned));
        assert_eq!(columns(&rows), "METHOD  PATH\nGET     /é\nany\n");
        assert_eq!(columns::<2>(&[]), "");
    }
}
