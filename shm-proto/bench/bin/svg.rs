//! A plot with two logarithmic axes, as SVG.

use std::fmt::Write;

use shm_bench::figures::short;
use shm_proto::Bytes;

/// Points of one line. Points that are not positive are left out.
#[derive(Clone, Debug, Default)]
pub(crate) struct Series {
    pub(crate) name: &'static str,
    pub(crate) points: Vec<(f64, f64)>,
}

/// Lines over two axes.
#[derive(Debug)]
pub(crate) struct Plot<'a> {
    pub(crate) title: &'a str,
    pub(crate) x_label: &'a str,
    pub(crate) y_label: &'a str,
    pub(crate) series: &'a [Series],
}

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 440.0;
/// Left, right, top and bottom of the plot.
const AREA: (f64, f64, f64, f64) = (80.0, 560.0, 40.0, 380.0);
/// Colours that colour-blind people can tell apart (Okabe and Ito).
const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];
const MOST_TICKS: i32 = 9;

impl Plot<'_> {
    pub(crate) fn render(&self) -> String {
        let drawn = |points: &&(f64, f64)| points.0 > 0.0 && points.1 > 0.0;
        let all: Vec<(f64, f64)> =
            self.series.iter().flat_map(|series| &series.points).filter(drawn).copied().collect();
        // An axis of sizes has powers of 2, every other axis powers of 10.
        let doubling = all.iter().all(|(x, _)| x.log2().fract() == 0.0);
        let x = Axis::over(all.iter().map(|p| p.0), if doubling { 2.0 } else { 10.0 }, (AREA.0, AREA.1));
        let y = Axis::over(all.iter().map(|p| p.1), 10.0, (AREA.3, AREA.2));
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
             font-size=\"12\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
        );
        let (left, right, top, bottom) = AREA;
        text(&mut svg, ((left + right) / 2.0, 24.0), "middle", self.title);
        text(&mut svg, ((left + right) / 2.0, HEIGHT - 14.0), "middle", self.x_label);
        let _ = writeln!(
            svg,
            "<text transform=\"translate(16 {}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            (top + bottom) / 2.0,
            escape(self.y_label)
        );
        for (value, at) in x.ticks() {
            line(&mut svg, (at, top), (at, bottom));
            text(&mut svg, (at, bottom + 18.0), "middle", &tick(value, doubling));
        }
        for (value, at) in y.ticks() {
            line(&mut svg, (left, at), (right, at));
            text(&mut svg, (left - 6.0, at + 4.0), "end", &tick(value, false));
        }
        let shown = self.series.iter().filter(|series| series.points.iter().any(|point| drawn(&point)));
        for ((series, colour), n) in shown.zip(COLOURS.iter().cycle()).zip(0u8..) {
            let points: Vec<(f64, f64)> =
                series.points.iter().filter(drawn).map(|p| (x.place(p.0), y.place(p.1))).collect();
            let path: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
            let _ = writeln!(
                svg,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
                path.join(" ")
            );
            for (x, y) in points {
                let _ = writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>");
            }
            let at = top + 10.0 + 18.0 * f64::from(n);
            let _ = writeln!(svg, "<circle cx=\"{}\" cy=\"{at}\" r=\"4\" fill=\"{colour}\"/>", right + 16.0);
            text(&mut svg, (right + 26.0, at + 4.0), "start", series.name);
        }
        svg.push_str("</svg>\n");
        svg
    }
}

/// Values on a logarithmic scale, from one power of the base to another.
struct Axis {
    base: f64,
    low: i32,
    high: i32,
    ends: (f64, f64),
}

impl Axis {
    fn over(values: impl Iterator<Item = f64> + Clone, base: f64, ends: (f64, f64)) -> Self {
        let least = values.clone().fold(f64::INFINITY, f64::min);
        let most = values.fold(f64::NEG_INFINITY, f64::max);
        if least > most {
            return Axis { base, low: 0, high: 1, ends };
        }
        // The margin absorbs rounding errors of the logarithm.
        let low = (least.log(base) + 1e-9).floor() as i32;
        let high = (most.log(base) - 1e-9).ceil() as i32;
        Axis { base, low, high: high.max(low + 1), ends }
    }

    fn place(&self, value: f64) -> f64 {
        let part = (value.log(self.base) - f64::from(self.low)) / f64::from(self.high - self.low);
        self.ends.0 + part * (self.ends.1 - self.ends.0)
    }

    /// Values and their places: every power, or fewer if there are many.
    fn ticks(&self) -> impl Iterator<Item = (f64, f64)> {
        let step = ((self.high - self.low) / MOST_TICKS + 1).max(1);
        let powers = (self.low..=self.high).step_by(usize::try_from(step).unwrap_or(1));
        powers.map(|power| self.base.powi(power)).map(|value| (value, self.place(value)))
    }
}

fn line(svg: &mut String, from: (f64, f64), to: (f64, f64)) {
    let _ = writeln!(
        svg,
        "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"#ddd\"/>",
        from.0, from.1, to.0, to.1
    );
}

fn text(svg: &mut String, at: (f64, f64), anchor: &str, text: &str) {
    let _ = writeln!(svg, "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>", at.0, at.1, escape(text));
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// `4K` where values double; else `0.01`, `100`, `10k`.
fn tick(value: f64, doubling: bool) -> String {
    if doubling && value >= 1.0 { Bytes(value as u64).to_string().replace("iB", "") } else { short(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_lie_on_their_places_and_the_ends_on_the_ends() {
        let axis = Axis::over([10.0, 1000.0].into_iter(), 10.0, (0.0, 200.0));
        for (value, place) in [(10.0, 0.0), (100.0, 100.0), (1000.0, 200.0)] {
            assert!((axis.place(value) - place).abs() < 1e-9, "{value}");
        }
        assert_eq!(axis.ticks().count(), 3);
        let one = Axis::over([8.0].into_iter(), 2.0, (0.0, 1.0));
        assert_eq!((one.low, one.high), (3, 4), "a single value has room, too");
        assert!(Axis::over([1.0, 1e30].into_iter(), 2.0, (0.0, 1.0)).ticks().count() <= 10);
    }

    #[test]
    fn what_cannot_be_on_a_logarithmic_scale_is_left_out() {
        let points = vec![(1.0, 0.0), (2.0, 5.0), (4.0, 50.0)];
        let series = [Series { name: "zero", points: vec![(1.0, 0.0)] }, Series { name: "a<b", points }];
        let svg = Plot { title: "t", x_label: "x", y_label: "y", series: &series }.render();
        // Two points and the mark of the legend.
        assert_eq!(svg.matches("<circle").count(), 3);
        assert!(!svg.contains("zero"), "{svg}");
        assert!(svg.contains("a&lt;b") && svg.ends_with("</svg>\n") && !svg.contains("NaN"), "{svg}");
        let empty = Plot { title: "t", x_label: "x", y_label: "y", series: &[] }.render();
        assert!(!empty.contains("NaN") && !empty.contains("inf"), "{empty}");
    }

    #[test]
    fn numbers_on_axes_are_short() {
        assert_eq!([0.01, 1.0, 100.0, 1e4, 1e6, 1e9].map(|v| tick(v, false)), ["0.01", "1", "100", "10k", "1M", "1G"]);
        assert_eq!([8.0, 4096.0, 1_048_576.0].map(|v| tick(v, true)), ["8", "4K", "1M"]);
    }
}
