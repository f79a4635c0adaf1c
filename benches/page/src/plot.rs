//! Plots: rows of marks on one axis, as SVG.
//!
//! Drawn in the colours of a light page; a style sheet in the picture changes them where a dark one is wanted. The picture
//! paints its own background, so that it can be read wherever it is put. Marks differ in shape as well as in colour.

use anyhow::{Result, anyhow};
use plotters::coord::combinators::LogCoord;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// What a mark stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    Pagepin,
    Linux,
    Limit,
    Goal,
}

/// A mark's place, and what is written beside the row's marks for it, if anything.
#[derive(Debug)]
pub(crate) struct Point {
    pub(crate) mark: Mark,
    pub(crate) value: f64,
    pub(crate) label: String,
}

#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) label: String,
    pub(crate) points: Vec<Point>,
    /// In place of marks.
    pub(crate) note: Option<String>,
}

#[derive(Debug)]
pub(crate) struct Plot {
    pub(crate) title: &'static str,
    /// For who does not see it.
    pub(crate) description: String,
    pub(crate) axis: Axis,
    /// What the axis counts.
    pub(crate) unit: &'static str,
    pub(crate) legend: Vec<(Mark, &'static str)>,
    pub(crate) rows: Vec<Row>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Axis {
    pub(crate) from: f64,
    pub(crate) to: f64,
    /// Where it is labelled, and how many decimals the labels have.
    pub(crate) ticks: &'static [f64],
    pub(crate) decimals: usize,
    pub(crate) logarithmic: bool,
}

/// As wide as GitHub shows a README.
const WIDTH: u32 = 830;
const LABELS: i32 = 318;
const MARGIN: i32 = 20;
/// For the last label of the axis, and of a row.
const RIGHT: i32 = 44;
const HEAD: i32 = 70;
const FOOT: i32 = 46;
const ROW: i32 = 27;
const FONT: &str = "sans-serif";
/// plotters' sizes are a quarter larger than those that it writes.
const TEXT: f64 = 13.0 * 1.24;
const SMALL: f64 = 12.0 * 1.24;
const TITLE: f64 = 15.0 * 1.24;

/// A colour on a light page, and on a dark one.
struct Colour(RGBColor, &'static str);

const PAPER: Colour = Colour(RGBColor(255, 255, 255), "#0d1117");
const INK: Colour = Colour(RGBColor(31, 35, 40), "#e6edf3");
const FAINT: Colour = Colour(RGBColor(89, 99, 110), "#9198a1");
const GRID: Colour = Colour(RGBColor(222, 226, 230), "#272d35");
const BAND: Colour = Colour(RGBColor(246, 248, 250), "#141a21");
const LINK: Colour = Colour(RGBColor(200, 206, 212), "#3d444d");
const BLUE: Colour = Colour(RGBColor(9, 105, 218), "#58a6ff");
const ORANGE: Colour = Colour(RGBColor(188, 76, 0), "#ffa657");
const GREEN: Colour = Colour(RGBColor(26, 127, 55), "#56d364");
const COLOURS: [Colour; 9] = [PAPER, INK, FAINT, GRID, BAND, LINK, BLUE, ORANGE, GREEN];

type Area<'s> = DrawingArea<SVGBackend<'s>, plotters::coord::Shift>;

/// The picture.
pub(crate) fn svg(plot: &Plot) -> Result<String> {
    let height = HEAD + ROW * plot.rows.len() as i32 + FOOT;
    let mut text = String::new();
    let area = SVGBackend::with_string(&mut text, (WIDTH, height as u32)).into_drawing_area();
    paint(plot, &area, height).map_err(|error| anyhow!("{error}"))?;
    drop(area);
    // What plotters does not write: who it is for, and the other colours.
    let (start, rest) = text.split_once('>').ok_or_else(|| anyhow!("no picture"))?;
    let head = format!(
        "{start} role=\"img\" aria-labelledby=\"title desc\">\n<title id=\"title\">{}</title>\n<desc id=\"desc\">{}</desc>\n{}",
        escape(plot.title),
        escape(&plot.description),
        style()
    );
    Ok(head + rest)
}

/// The colours of a dark page, for everything that has been given one of a light page.
fn style() -> String {
    let rule = |Colour(RGBColor(r, g, b), dark): &Colour| {
        let light = format!("#{r:02X}{g:02X}{b:02X}");
        format!("[fill=\"{light}\"]{{fill:{dark}}}[stroke=\"{light}\"]{{stroke:{dark}}}\n")
    };
    let dark: String = COLOURS.iter().map(rule).collect();
    format!(
        "<style>\ntext{{font-family:-apple-system,\"Segoe UI\",\"Noto Sans\",Helvetica,Arial,sans-serif}}\n\
         @media (prefers-color-scheme: dark) {{\n{dark}}}\n</style>"
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

type Painted = Result<(), Box<dyn std::error::Error>>;

fn paint(plot: &Plot, area: &Area<'_>, height: i32) -> Painted {
    let width = WIDTH as i32;
    area.draw(&Rectangle::new([(0, 0), (width, height)], PAPER.0.filled()))?;
    let title = style_of(TITLE, &INK, HPos::Left).pos(Pos::new(HPos::Left, VPos::Center));
    area.draw(&Text::new(plot.title, (MARGIN, 22), title))?;
    legend(plot, area)?;
    for row in (0..plot.rows.len() as i32).step_by(2) {
        let top = HEAD + row * ROW;
        area.draw(&Rectangle::new([(0, top), (width, top + ROW)], BAND.0.filled()))?;
    }
    let inner = area.clone().shrink((LABELS, HEAD), ((width - LABELS - RIGHT) as u32, (height - HEAD - FOOT) as u32));
    let (axis, rows) = (plot.axis, plot.rows.len() as f64);
    if axis.logarithmic {
        let coordinates = Cartesian2d::<LogCoord<f64>, RangedCoordf64>::new(
            (axis.from..axis.to).log_scale(),
            0.0..rows,
            inner.get_pixel_range(),
        );
        rows_of(plot, area, |point| coordinates.translate(point))?;
    } else {
        let coordinates =
            Cartesian2d::<RangedCoordf64, RangedCoordf64>::new(axis.from..axis.to, 0.0..rows, inner.get_pixel_range());
        rows_of(plot, area, |point| coordinates.translate(point))?;
    }
    area.present()?;
    Ok(())
}

fn legend(plot: &Plot, area: &Area<'_>) -> Painted {
    let mut x = MARGIN + 7;
    for (mark, name) in &plot.legend {
        // A pointer stands above what it points at.
        shape(area, *mark, (x, if *mark == Mark::Goal { 55 } else { 48 }))?;
        area.draw(&Text::new(*name, (x + 12, 48), style_of(SMALL, &FAINT, HPos::Left)))?;
        x += 12 + name.chars().count() as i32 * 7 + 22;
    }
    Ok(())
}

/// The grid, and the rows on it. `place` turns a value and a row into a place in the picture.
fn rows_of(plot: &Plot, area: &Area<'_>, place: impl Fn(&(f64, f64)) -> (i32, i32)) -> Painted {
    let bottom = HEAD + ROW * plot.rows.len() as i32;
    for tick in plot.axis.ticks {
        let (x, _) = place(&(*tick, 0.0));
        area.draw(&PathElement::new([(x, HEAD), (x, bottom)], GRID.0))?;
        let label = thousands(*tick, plot.axis.decimals);
        area.draw(&Text::new(label, (x, bottom + 13), style_of(SMALL, &FAINT, HPos::Center)))?;
    }
    let (x, _) = place(&(plot.axis.to, 0.0));
    area.draw(&Text::new(plot.unit, (x, bottom + 33), style_of(SMALL, &FAINT, HPos::Right)))?;
    for (index, row) in plot.rows.iter().enumerate() {
        let y = HEAD + ROW * index as i32 + ROW / 2;
        area.draw(&Text::new(row.label.as_str(), (MARGIN, y), style_of(TEXT, &INK, HPos::Left)))?;
        if let Some(note) = &row.note {
            // Without the grid, which would cross it.
            let colour = if index % 2 == 0 { &BAND } else { &PAPER };
            let (top, right) = (HEAD + ROW * index as i32, WIDTH as i32);
            area.draw(&Rectangle::new([(LABELS, top), (right, top + ROW)], colour.0.filled()))?;
            area.draw(&Text::new(note.as_str(), (LABELS, y), style_of(SMALL, &FAINT, HPos::Left)))?;
        }
        marks(row, area, y, |value| place(&(value, 0.0)).0)?;
    }
    Ok(())
}

/// The marks of a row, joined from the first to the last but for the goal. What is written stands outside: on the right, but
/// pagepin's on the left where Linux's is there too.
fn marks(row: &Row, area: &Area<'_>, y: i32, place: impl Fn(f64) -> i32) -> Painted {
    let measured = || row.points.iter().filter(|point| point.mark != Mark::Goal).map(|point| place(point.value));
    if let (Some(first), Some(last)) = (measured().min(), measured().max()) {
        area.draw(&PathElement::new([(first, y), (last, y)], LINK.0.stroke_width(2)))?;
    }
    let places = || row.points.iter().map(|point| place(point.value));
    let (Some(first), Some(last)) = (places().min(), places().max()) else { return Ok(()) };
    let has_linux = row.points.iter().any(|point| point.mark == Mark::Linux);
    for point in &row.points {
        shape(area, point.mark, (place(point.value), y))?;
        let on_the_left = has_linux && point.mark == Mark::Pagepin;
        let (side, x) = if on_the_left { (HPos::Right, first - 11) } else { (HPos::Left, last + 11) };
        if !point.label.is_empty() {
            area.draw(&Text::new(point.label.as_str(), (x, y), style_of(SMALL, colour_of(point.mark), side)))?;
        }
    }
    Ok(())
}

fn colour_of(mark: Mark) -> &'static Colour {
    match mark {
        Mark::Pagepin => &BLUE,
        Mark::Linux => &ORANGE,
        Mark::Limit => &INK,
        Mark::Goal => &GREEN,
    }
}

/// Disc, square, bar; and a pointer from above, which hides none of them.
fn shape(area: &Area<'_>, mark: Mark, (x, y): (i32, i32)) -> Painted {
    let colour = colour_of(mark);
    match mark {
        Mark::Pagepin => area.draw(&Circle::new((x, y), 5, colour.0.filled()))?,
        Mark::Linux => area.draw(&Rectangle::new([(x - 4, y - 4), (x + 5, y + 5)], colour.0.filled()))?,
        Mark::Limit => area.draw(&Rectangle::new([(x - 1, y - 8), (x + 2, y + 8)], colour.0.filled()))?,
        Mark::Goal => {
            let corners = vec![(x - 5, y - 11), (x + 5, y - 11), (x, y - 3)];
            area.draw(&Polygon::new(corners, colour.0.filled()))?;
        }
    }
    Ok(())
}

fn style_of(size: f64, colour: &Colour, side: HPos) -> TextStyle<'static> {
    (FONT, size).into_font().color(&colour.0).pos(Pos::new(side, VPos::Center))
}

/// What is written beside the marks, row by row.
pub(crate) fn told(rows: &[Row]) -> String {
    let row = |row: &Row| {
        let labels = row.points.iter().map(|point| point.label.as_str()).filter(|label| !label.is_empty());
        let labels: Vec<&str> = labels.chain(row.note.as_deref()).collect();
        format!("{}: {}", row.label, labels.join(" and "))
    };
    rows.iter().map(row).collect::<Vec<_>>().join("; ")
}

/// With a comma before each three digits of the whole part.
pub(crate) fn thousands(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut out = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot() -> Plot {
        let point = |mark, value: f64| Point { mark, value, label: thousands(value, 0) };
        Plot {
            title: "A < B",
            description: "what it shows".to_owned(),
            axis: Axis { from: 10.0, to: 10_000.0, ticks: &[10.0, 1000.0], decimals: 0, logarithmic: true },
            unit: "instructions",
            legend: vec![(Mark::Pagepin, "pagepin"), (Mark::Linux, "Linux")],
            rows: vec![
                Row {
                    label: "pin".to_owned(),
                    points: vec![point(Mark::Linux, 4317.0), point(Mark::Pagepin, 30.0)],
                    note: None,
                },
                Row { label: "two threads".to_owned(), points: Vec::new(), note: Some("not measurable".to_owned()) },
            ],
        }
    }

    #[test]
    fn every_colour_has_its_counterpart_on_a_dark_page() {
        let text = svg(&plot()).unwrap();
        let (style, drawn) = text.split_once("</style>").unwrap();
        let used = drawn.split("fill=\"").chain(drawn.split("stroke=\"")).filter_map(|part| part.get(..7));
        for colour in used.filter(|colour| colour.starts_with('#')) {
            assert!(style.contains(colour), "{colour}");
        }
    }

    #[test]
    fn all_that_is_to_be_read_is_text() {
        let text = svg(&plot()).unwrap();
        for wanted in
            ["<title id=\"title\">A &lt; B<", "4,317", "30", "pin", "not measurable", "instructions", "pagepin"]
        {
            assert!(text.contains(wanted), "{wanted}");
        }
    }

    #[test]
    fn thousands_are_told_apart() {
        assert_eq!(
            [thousands(999.4, 0), thousands(4317.0, 0), thousands(1_234_567.5, 1)],
            ["999", "4,317", "1,234,567.5"]
        );
    }
}
