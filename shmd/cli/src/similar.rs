//! Names that are probably meant.

/// The candidate that differs least from `name`, if a slip of the hand explains the difference: a third of the letters at most, or
/// upper and lower case.
#[must_use]
pub fn nearest<'c>(name: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let name = name.to_lowercase();
    let most = (name.chars().count() / 3).max(1);
    let distances = candidates.into_iter().map(|candidate| (distance(&name, &candidate.to_lowercase()), candidate));
    let (_, nearest) = distances.filter(|(distance, _)| *distance <= most).min_by_key(|(distance, _)| *distance)?;
    Some(nearest)
}

/// What an error about `name` ends with: the candidate that is probably meant, if there is one.
#[must_use]
pub fn did_you_mean<'c>(name: &str, candidates: impl IntoIterator<Item = &'c str>) -> String {
    nearest(name, candidates).map(|meant| format!("; did you mean {meant}?")).unwrap_or_default()
}

/// Letters that are added, missing, different, or exchanged with their neighbour.
fn distance(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().collect(), to.chars().collect());
    let mut rows = vec![(0..=to.len()).collect::<Vec<_>>()];
    for (i, a) in from.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in to.iter().enumerate() {
            let mut least = (rows[i][j] + usize::from(a != b)).min(rows[i][j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *a == to[j - 1] && from[i - 1] == *b {
                least = least.min(rows[i - 1][j - 1] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[from.len()][to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_count_one_each() {
        for (from, to, slips) in [
            ("cam", "cam", 0),
            ("", "cam", 3),
            ("cma", "cam", 1),
            ("camm", "cam", 1),
            ("can", "cam", 1),
            ("abc", "ca", 3),
        ] {
            assert_eq!(distance(from, to), slips, "{from} {to}");
        }
    }

    #[test]
    fn what_is_meant_is_near_and_nothing_is_better_than_a_wild_guess() {
        let names = ["cam", "imu", "front-camera", "rear-camera"];
        for (name, meant) in [
            ("cma", Some("cam")),
            ("CAM", Some("cam")),
            ("front_camera", Some("front-camera")),
            ("frontcamra", Some("front-camera")),
            ("lidar", None),
            ("i", None),
        ] {
            assert_eq!(nearest(name, names), meant, "{name}");
        }
        assert_eq!(nearest("cam", []), None);
        assert_eq!(did_you_mean("cma", names), "; did you mean cam?");
        assert_eq!(did_you_mean("lidar", names), "");
    }
}
