//! Plain-text tables: the first column flush left, numbers flush right; a column without a name is prose.

#[derive(Clone, Copy)]
pub(crate) enum Align {
    Left,
    Right,
}

/// Rows shorter than `columns` end early; longer ones are cut.
pub(crate) fn render(columns: &[(&str, Align)], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        let heading = columns.get(column).map_or(0, |(name, _)| name.chars().count());
        cells.chain([heading]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut text = String::new();
        for ((cell, (_, align)), width) in cells.zip(columns).zip(&widths) {
            let padded = match align {
                Align::Left => format!("{cell:<width$}"),
                Align::Right => format!("{cell:>width$}"),
            };
            if !text.is_empty() {
                text.push_str("  ");
            }
            text.push_str(&padded);
        }
        format!("{}\n", text.trim_end())
    };
    let mut out = line(&mut columns.iter().map(|(name, _)| *name));
    let rules: Vec<String> = columns
        .iter()
        .zip(&widths)
        .map(|((name, _), width)| "-".repeat(if name.is_empty() { 0 } else { *width }))
        .collect();
    out.push_str(&line(&mut rules.iter().map(String::as_str)));
    for row in rows {
        out.push_str(&line(&mut row.iter().map(String::as_str)));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_have_no_trailing_blanks() {
        let rows = vec![vec!["a".to_owned(), "1.0".to_owned()], vec!["long".to_owned(), "10.0".to_owned()]];
        let text = render(&[("key", Align::Left), ("n", Align::Right)], &rows);
        assert_eq!(text, "key      n\n----  ----\na      1.0\nlong  10.0\n");
    }
}
