//! Figures as short text.

/// `12.3GB/s`, with a G of 10⁹; less than 1 GB/s in MB/s.
pub fn gigabytes(bytes_per_s: f64) -> String {
    if bytes_per_s < 1e9 { format!("{:.0}MB/s", bytes_per_s / 1e6) } else { format!("{:.1}GB/s", bytes_per_s / 1e9) }
}

/// `144ns`, `31.2us`, `1.3ms`, `2.1s`.
pub fn time(ns: u64) -> String {
    match ns {
        0..1_000 => format!("{ns}ns"),
        1_000..1_000_000 => format!("{:.1}us", ns as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1}ms", ns as f64 / 1e6),
        _ => format!("{:.1}s", ns as f64 / 1e9),
    }
}

/// As [`time`], with a decimal below 100 ns: `4.7ns`.
pub fn fine(ns: f64) -> String {
    if ns < 100.0 { format!("{ns:.1}ns") } else { time(ns as u64) }
}

/// `67x`, `2.3x`, `0.92x`; nothing if one of the figures is missing.
pub fn ratio(ours: Option<f64>, theirs: Option<f64>) -> String {
    match (ours, theirs) {
        (Some(ours), Some(theirs)) if theirs > 0.0 => match ours / theirs {
            times if times >= 10.0 => format!("{times:.0}x"),
            times if times >= 2.0 => format!("{times:.1}x"),
            times => format!("{times:.2}x"),
        },
        _ => String::new(),
    }
}

/// `0.01`, `100`, `10k`, `209.5M`: at most one decimal from 1000 on.
pub fn short(value: f64) -> String {
    let tenths = |value: f64| (value * 10.0).round() / 10.0;
    match value {
        v if v >= 1e9 => format!("{}G", tenths(v / 1e9)),
        v if v >= 1e6 => format!("{}M", tenths(v / 1e6)),
        v if v >= 1e3 => format!("{}k", tenths(v / 1e3)),
        v if v >= 1.0 => tenths(v).to_string(),
        v => ((v * 1e9).round() / 1e9).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        assert_eq!([144, 31_240, 1_300_000, 2_100_000_000].map(time), ["144ns", "31.2us", "1.3ms", "2.1s"]);
        assert_eq!([4.72, 144.2, 31_240.9].map(fine), ["4.7ns", "144ns", "31.2us"]);
        assert_eq!([12.34e9, 150e6].map(gigabytes), ["12.3GB/s", "150MB/s"]);
        assert_eq!(ratio(Some(1.0), None), "");
        assert_eq!(ratio(Some(1.0), Some(0.0)), "");
        assert_eq!(ratio(Some(67.2), Some(1.0)), "67x");
        assert_eq!(ratio(Some(2.31), Some(1.0)), "2.3x");
        assert_eq!([0.01, 1.0, 100.0, 1e4, 1e6, 1e9].map(short), ["0.01", "1", "100", "10k", "1M", "1G"]);
        assert_eq!([209_512_345.0, 799.04].map(short), ["209.5M", "799"]);
    }
}
