//! Draws the tables, into a terminal or as text.
//!
//! This module does not know: what the cells mean.

use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Cell, Paragraph, Row, Table, Widget};

use super::rows::{FILTER_COLUMNS, ROUTE_COLUMNS, Rows, UPSTREAM_COLUMNS};

/// Draws one frame. `problem` says why the numbers are old.
pub(super) fn draw(frame: &mut Frame<'_>, rows: &Rows, title: &str, problem: Option<&str>) {
    render(rows, &format!("{title}   q: quit"), problem, frame.area(), frame.buffer_mut());
}

/// The same without a terminal, as high as the tables need.
pub(super) fn as_text(rows: &Rows, title: &str, columns: u16) -> String {
    let lines = rows.routes.len() + rows.filters.len() + rows.upstreams.len() + 9;
    let area = Rect::new(0, 0, columns, u16::try_from(lines).unwrap_or(u16::MAX / columns));
    let mut buffer = Buffer::empty(area);
    render(rows, title, None, area, &mut buffer);
    let line = |y: u16| -> String { (0..area.width).map(|x| buffer[(x, y)].symbol()).collect() };
    let lines: Vec<String> = (0..area.height).map(|y| line(y).trim_end().to_owned()).collect();
    lines.join("\n").trim_end().to_owned()
}

fn render(rows: &Rows, title: &str, problem: Option<&str>, area: Rect, buffer: &mut Buffer) {
    // A table with rows has a heading, and an empty line after it.
    let lines = |rows: &[Vec<String>]| if rows.is_empty() { 0 } else { rows.len() + 2 };
    let height = |rows: &[Vec<String>]| Constraint::Max(u16::try_from(lines(rows)).unwrap_or(u16::MAX));
    let parts = [
        Constraint::Length(3),
        height(&rows.routes),
        height(&rows.filters),
        height(&rows.upstreams),
        Constraint::Fill(1),
    ];
    let [head, routes, filters, upstreams, _] = Layout::vertical(parts).areas(area);
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let first = Line::styled(format!("witgate {title}"), bold);
    let second = match problem {
        Some(problem) => Line::styled(format!("no response: {problem}"), bold),
        None if rows.summary.is_empty() => Line::raw("reading …"),
        None => Line::raw(rows.summary.as_str()),
    };
    Paragraph::new(vec![first, second]).render(head, buffer);
    table(&ROUTE_COLUMNS, &rows.routes).render(routes, buffer);
    table(&FILTER_COLUMNS, &rows.filters).render(filters, buffer);
    table(&UPSTREAM_COLUMNS, &rows.upstreams).render(upstreams, buffer);
}

/// Columns are as wide as their widest cell.
fn table<'r>(columns: &[&'r str], rows: &'r [Vec<String>]) -> Table<'r> {
    let width = |index: usize| {
        let cells = rows.iter().map(|row| row[index].chars().count());
        let widest = cells.chain([columns[index].len()]).max().unwrap_or(0);
        Constraint::Max(u16::try_from(widest).unwrap_or(u16::MAX))
    };
    let widths: Vec<Constraint> = (0..columns.len()).map(width).collect();
    let heading = Row::new(columns.to_vec()).style(Style::new().add_modifier(Modifier::REVERSED));
    let cells = |row: &'r Vec<String>| Row::new(row.iter().map(|cell| Cell::from(cell.as_str())));
    Table::new(rows.iter().map(cells), widths).header(heading).column_spacing(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_drawn_as_text() {
        let cells = |count: usize| (0..count).map(|index| format!("c{index}")).collect::<Vec<_>>();
        let rows = Rows {
            summary: "1 request/s".into(),
            routes: vec![cells(7), cells(7)],
            filters: vec![cells(9)],
            upstreams: vec![cells(8)],
        };
        let text = as_text(&rows, "127.0.0.1:9901", 120);
        for line in ["witgate 127.0.0.1:9901", "1 request/s", "c0     c1     c2     c3   c4   c5         c6"] {
            assert!(text.lines().any(|own| own == line), "{line:?} is not in\n{text}");
        }
        assert_eq!(text.lines().filter(|line| line.starts_with("c0")).count(), 4, "{text}");
    }
}
