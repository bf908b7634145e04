//! Drawings in SVG. Text in them is text: the reader's fonts draw it, and none is needed here.

use std::path::Path;

use plotters::prelude::*;

const SIZE: (u32, u32) = (860, 480);
const FONT: (&str, u32) = ("sans-serif", 13);
const COLOURS: [RGBColor; 4] =
    [RGBColor(31, 119, 180), RGBColor(255, 127, 14), RGBColor(44, 160, 44), RGBColor(150, 90, 180)];

/// Points with names: `(name, x, y)`.
pub fn scatter(file: &Path, x: &str, y: &str, points: &[(&str, f64, f64)]) -> Result<(), String> {
    let most = |of: fn(&(&str, f64, f64)) -> f64| points.iter().map(of).fold(0.0, f64::max);
    let least = |of: fn(&(&str, f64, f64)) -> f64| points.iter().map(of).fold(f64::INFINITY, f64::min);
    let (right, top) = (most(|it| it.1), most(|it| it.2));
    let (left, bottom) = (least(|it| it.1), least(|it| it.2));
    let draw = || -> Result<(), Box<dyn std::error::Error>> {
        let area = SVGBackend::new(file, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        // Compressors lie far apart: a tenth of the range is no distance to the slowest.
        let mut chart = ChartBuilder::on(&area)
            .margin(12)
            .x_label_area_size(40)
            .y_label_area_size(52)
            .build_cartesian_2d(
                (left * 0.9..right * 2.0).log_scale(),
                bottom * 0.95..top + (top - bottom).max(0.1) * 0.08,
            )?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .x_desc(x)
            .y_desc(y)
            .label_style(FONT)
            .axis_desc_style(FONT)
            .draw()?;
        let mut taken = Vec::new();
        for (number, &(name, x, y)) in points.iter().enumerate() {
            let colour = COLOURS[number % COLOURS.len()];
            let at = chart.plotting_area().map_coordinate(&(x, y));
            let point = EmptyElement::at((x, y))
                + Circle::new((0, 0), 4, colour.filled())
                + Text::new(
                    name.to_owned(),
                    (7, free(at, name, &mut taken)),
                    FONT.into_font().color(&colour),
                );
            chart.draw_series(std::iter::once(point))?;
        }
        area.present()?;
        Ok(())
    };
    draw().map_err(|error| error.to_string())
}

/// How far below its point a name stands: the nearest place where none of those before it does. In pixels.
fn free(point: (i32, i32), name: &str, taken: &mut Vec<(i32, i32, i32)>) -> i32 {
    const LINE: i32 = FONT.1 as i32;
    const LETTER: i32 = 7;
    let (left, right) = (point.0, point.0 + LETTER * name.len() as i32);
    let clear = |y: i32| taken.iter().all(|it| right < it.0 || left > it.1 || (y - it.2).abs() >= LINE);
    let places = (0..).flat_map(|far| [-LINE / 2 - far * LINE, -LINE / 2 + far * LINE]);
    let below = places.take(20).find(|below| clear(point.1 + below)).unwrap_or(-LINE / 2);
    taken.push((left, right, point.1 + below));
    below
}

/// Groups of bars, one of each series in each group; `values` are by series, then by group.
pub fn bars(
    file: &Path,
    series: &[&str],
    groups: &[&str],
    values: &[Vec<Option<f64>>],
) -> Result<(), String> {
    let most = values.iter().flatten().flatten().copied().fold(0.0, f64::max);
    let draw = || -> Result<(), Box<dyn std::error::Error>> {
        let area = SVGBackend::new(file, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        // Group 0 has its middle at 0, group 1 at 1, and so on: the axis has a label for each whole number.
        let mut chart = ChartBuilder::on(&area)
            .margin(12)
            .x_label_area_size(40)
            .y_label_area_size(64)
            .build_cartesian_2d(-0.5..groups.len() as f64 - 0.5, 0.0..most * 1.15)?;
        let name =
            |at: &f64| groups.get(at.round().max(0.0) as usize).copied().unwrap_or_default().to_owned();
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .disable_x_mesh()
            .x_labels(groups.len() + 1)
            .x_label_formatter(&name)
            .label_style(FONT)
            .draw()?;
        let width = 0.7 / series.len() as f64;
        for (number, (name, values)) in series.iter().zip(values).enumerate() {
            let colour = COLOURS[number % COLOURS.len()];
            let bars = values.iter().enumerate().filter_map(|(group, value)| {
                let left = group as f64 - 0.35 + width * number as f64;
                Some(Rectangle::new([(left, 0.0), (left + width * 0.95, (*value)?)], colour.filled()))
            });
            chart
                .draw_series(bars)?
                .label(*name)
                .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 12, y + 5)], colour.filled()));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .label_font(FONT)
            .background_style(WHITE.filled())
            .draw()?;
        area.present()?;
        Ok(())
    };
    draw().map_err(|error| error.to_string())
}
