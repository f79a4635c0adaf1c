//! Plain-text tables: headings, a rule, rows; no line has trailing blanks.

use comfy_table::{CellAlignment, LineStyle, Table, TableStyle};

#[derive(Clone, Copy)]
pub(crate) enum Align {
    Left,
    Right,
}

impl From<Align> for CellAlignment {
    fn from(align: Align) -> Self {
        match align {
            Align::Left => Self::Left,
            Align::Right => Self::Right,
        }
    }
}

/// Rows shorter than `columns` end early.
pub(crate) fn render(columns: &[(&str, Align)], rows: &[Vec<String>]) -> String {
    let mut table = Table::new();
    table.load_style(TableStyle::new().header_separator(LineStyle::none().fill('-')));
    table.set_header(columns.iter().map(|(name, _)| *name)).add_rows(rows);
    for ((_, align), column) in columns.iter().zip(table.column_iter_mut()) {
        column.set_padding((0, 2)).set_cell_alignment((*align).into());
    }
    table.trim_fmt() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_have_no_trailing_blanks() {
        let rows = vec![vec!["a".to_owned(), "1.0".to_owned()], vec!["long".to_owned(), "10.0".to_owned()]];
        let text = render(&[("key", Align::Left), ("n", Align::Right)], &rows);
        assert_eq!(text, "key      n\n------------\na      1.0\nlong  10.0\n");
    }
}
