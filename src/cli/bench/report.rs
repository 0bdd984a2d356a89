//! Figures: a value, its unit, and the baseline measured in the same run.

use std::io::{self, Write};

use super::machine::Load;
use crate::cli::output::{Table, short};

/// One measured value. Its name says what, its unit says which way is better only to those who know; the ratio to the
/// baseline is always value ÷ baseline.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub(super) struct Figure {
    /// Name of the figure, `<benchmark>.<case>`.
    pub(super) name: String,
    /// The value.
    pub(super) value: f64,
    /// Its unit.
    pub(super) unit: &'static str,
    /// The same unit, reached by a bare loop in the same run; absent where nothing bare compares.
    pub(super) baseline: Option<f64>,
    /// Value divided by baseline.
    pub(super) ratio: Option<f64>,
    /// The state of the machine meanwhile; `null` where it does not tell.
    pub(super) load: Option<Load>,
}

impl Figure {
    /// A figure without a baseline.
    pub(super) fn new(name: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self {
            name: name.into(),
            value,
            unit,
            baseline: None,
            ratio: None,
            load: None,
        }
    }

    /// The figure beside `baseline`.
    pub(super) fn against(self, baseline: f64) -> Self {
        Self {
            baseline: Some(baseline),
            ratio: (baseline > 0.0).then_some(self.value / baseline),
            ..self
        }
    }
}

/// Where figures go.
#[derive(Debug, Clone, Copy)]
pub(super) enum Style {
    /// A table for people.
    Table,
    /// One JSON object a line: `name, value, unit, baseline, ratio, load`.
    JsonLines,
}

/// Prints figures.
pub(super) fn print(figures: &[Figure], style: Style, out: &mut impl Write) -> io::Result<()> {
    match style {
        Style::Table => print_table(figures, out)?,
        Style::JsonLines => {
            for figure in figures {
                writeln!(out, "{}", serde_json::to_string(figure)?)?;
            }
        }
    }
    out.flush()
}

fn print_table(figures: &[Figure], out: &mut impl Write) -> io::Result<()> {
    let mut table = Table::new(&[
        "name", "value", "baseline", "ratio", "unit", "stolen", "others",
    ]);
    let shown = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), short);
    for figure in figures {
        table.row([
            figure.name.clone(),
            short(figure.value),
            shown(figure.baseline),
            shown(figure.ratio),
            figure.unit.to_owned(),
            percent(figure.load.map(|it| it.stolen)),
            percent(figure.load.map(|it| it.others)),
        ]);
    }
    table.print(out)
}

fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "-".to_owned(), |share| format!("{:.1} %", 100.0 * share))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_lines_hold_value_baseline_and_ratio() {
        let mut figures = [
            Figure::new("log.fetch", 3.0, "GiB/s").against(6.0),
            Figure::new("commit.1", 2.5, "ms"),
        ];
        figures[0].load = Some(Load {
            stolen: 0.25,
            others: 0.0,
        });
        let mut out = Vec::new();
        print(&figures, Style::JsonLines, &mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "{\"name\":\"log.fetch\",\"value\":3.0,\"unit\":\"GiB/s\",\"baseline\":6.0,\"ratio\":0.5,\"load\":{\"stolen\":0.25,\"others\":0.0}}\n\
             {\"name\":\"commit.1\",\"value\":2.5,\"unit\":\"ms\",\"baseline\":null,\"ratio\":null,\"load\":null}\n"
        );
    }
}
