//! Numbers with units, read exactly: `"4.4ns"`, `"48KiB"`, `"2200MHz"`.
//!
//! A platform or scenario file never holds a bare number for a quantity that has a unit, and never a float
//! (verification.md §4.2 points 2 and 3).

use crate::time::{Clock, Ps};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Why a quantity cannot be read.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum UnitError {
    /// No unit, or one of another kind.
    #[error("found `{found}`, expected a {what} with one of the units {units}")]
    Unit {
        /// The text.
        found: String,
        /// Which kind of quantity.
        what: &'static str,
        /// Accepted units.
        units: &'static str,
    },
    /// The part before the unit is not a plain decimal number.
    #[error("found `{found}`, expected a decimal number before the unit, such as {example}")]
    Number {
        /// The text.
        found: String,
        /// A good one.
        example: &'static str,
    },
    /// More digits behind the point than the base unit has, or too large.
    #[error("`{found}` is not a whole number of {base}, or too large")]
    Range {
        /// The text.
        found: String,
        /// The base unit.
        base: &'static str,
    },
    /// Not a range of addresses.
    #[error("found `{found}`, expected a range such as 0x100000-0x77800000, not empty")]
    Area {
        /// The text.
        found: String,
    },
}

struct Kind {
    what: &'static str,
    units: &'static [(&'static str, u64)],
    list: &'static str,
    base: &'static str,
    example: &'static str,
}

const TIME: Kind = Kind {
    what: "time",
    units: &[
        ("ps", 1),
        ("ns", 1_000),
        ("us", 1_000_000),
        ("ms", 1_000_000_000),
        ("s", 1_000_000_000_000),
    ],
    list: "ps, ns, us, ms, s",
    base: "picoseconds",
    example: "4.4ns",
};
const SIZE: Kind = Kind {
    what: "size",
    units: &[("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)],
    list: "B, KiB, MiB, GiB, TiB",
    base: "bytes",
    example: "48KiB",
};
const FREQUENCY: Kind = Kind {
    what: "frequency",
    units: &[("MHz", 1), ("GHz", 1000)],
    list: "MHz, GHz",
    base: "megahertz",
    example: "2200MHz",
};

fn parse(text: &str, kind: &Kind) -> Result<u64, UnitError> {
    let number_len = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(number_len);
    let unit = unit.trim_start_matches(' ');
    let Some(&(_, scale)) = kind.units.iter().find(|(name, _)| *name == unit) else {
        return Err(UnitError::Unit { found: clip(text), what: kind.what, units: kind.list });
    };
    let number_error = || UnitError::Number { found: clip(text), example: kind.example };
    let range_error = || UnitError::Range { found: clip(text), base: kind.base };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if whole.is_empty() || fraction.is_empty() || fraction.contains('.') {
        return Err(number_error());
    }
    let whole: u64 = whole.parse().map_err(|_| range_error())?;
    if fraction.len() > 15 {
        return Err(range_error());
    }
    let denominator = 10u64.pow(fraction.len() as u32);
    let numerator: u64 = fraction.parse().map_err(|_| range_error())?;
    let scaled = u128::from(numerator) * u128::from(scale);
    if !scaled.is_multiple_of(u128::from(denominator)) {
        return Err(range_error());
    }
    let parts = (scaled / u128::from(denominator)) as u64;
    whole.checked_mul(scale).and_then(|w| w.checked_add(parts)).ok_or_else(range_error)
}

/// A short, printable form of hostile text.
pub fn clip(text: &str) -> String {
    let mut out: String = text
        .chars()
        .take(40)
        .map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c })
        .collect();
    if text.chars().nth(40).is_some() {
        out.push('…');
    }
    out
}

/// Reads a time such as `4.4ns`.
///
/// # Errors
/// What was found and what was expected.
pub fn parse_time(text: &str) -> Result<Ps, UnitError> {
    let ps = parse(text, &TIME)?;
    if Ps(ps).is_horizon() {
        return Err(UnitError::Range { found: clip(text), base: TIME.base });
    }
    Ok(Ps(ps))
}

/// Reads a size such as `48KiB`, in bytes.
///
/// # Errors
/// What was found and what was expected.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    parse(text, &SIZE)
}

/// Reads a frequency such as `2200MHz` or `2.2GHz`.
///
/// # Errors
/// What was found and what was expected; zero is refused.
pub fn parse_frequency(text: &str) -> Result<Clock, UnitError> {
    let mhz = parse(text, &FREQUENCY)?;
    if mhz == 0 {
        return Err(UnitError::Range { found: clip(text), base: FREQUENCY.base });
    }
    Ok(Clock { mhz })
}

/// A range of bytes: `base` belongs to it, `end` does not.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Area {
    /// First byte.
    pub base: u64,
    /// First byte after it.
    pub end: u64,
}

impl Area {
    /// Whether a byte of this range is one of `other` too.
    pub const fn overlaps(&self, other: &Area) -> bool {
        self.base < other.end && other.base < self.end
    }
    /// Whether all of `other` is in this range.
    pub const fn contains(&self, other: &Area) -> bool {
        self.base <= other.base && other.end <= self.end
    }
    /// How many bytes.
    pub const fn bytes(&self) -> u64 {
        self.end.saturating_sub(self.base)
    }
}

impl std::fmt::Display for Area {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#x}-{:#x}", self.base, self.end)
    }
}

/// Reads a range such as `0x100000-0x77800000`: first byte, and first byte after it.
///
/// # Errors
/// What was found and what was expected; an empty range is refused.
pub fn parse_area(text: &str) -> Result<Area, UnitError> {
    let bad = || UnitError::Area { found: clip(text) };
    let number = |text: &str| {
        let hex = text.strip_prefix("0x").ok_or_else(bad)?;
        if !hex.starts_with(|c: char| c.is_ascii_hexdigit()) {
            return Err(bad());
        }
        u64::from_str_radix(hex, 16).map_err(|_| bad())
    };
    let (base, end) = text.split_once('-').ok_or_else(bad)?;
    let area = Area { base: number(base)?, end: number(end)? };
    if area.base < area.end { Ok(area) } else { Err(bad()) }
}

/// Reads ranges with spaces between them; no text is no range.
///
/// # Errors
/// What was found and what was expected.
pub fn parse_areas(text: &str) -> Result<Vec<Area>, UnitError> {
    text.split_whitespace().map(parse_area).collect()
}

/// Serde forms of quantities: text with a unit, as platform files have them.
pub mod serde_text {
    macro_rules! text_form {
        ($module:ident, $ty:ty, $parse:path, $print:expr, $doc:literal) => {
            #[doc = $doc]
            pub mod $module {
                #[allow(unused_imports, reason = "not every quantity is a newtype")]
                use super::super::*;
                use serde::{Deserialize, Deserializer, Serializer, de::Error};

                /// Prints with a unit.
                ///
                /// # Errors
                /// Those of the serializer.
                pub fn serialize<S: Serializer>(v: &$ty, s: S) -> Result<S::Ok, S::Error> {
                    let print: fn(&$ty) -> String = $print;
                    s.serialize_str(&print(v))
                }
                /// Reads with a unit.
                ///
                /// # Errors
                /// What was found and what was expected.
                pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<$ty, D::Error> {
                    let text = String::deserialize(d)?;
                    $parse(&text).map_err(D::Error::custom)
                }
            }
        };
    }
    text_form!(area, Area, parse_area, |a| a.to_string(), "Ranges, such as `0x100000-0x77800000`.");
    text_form!(
        areas,
        Vec<Area>,
        parse_areas,
        |list| list.iter().map(Area::to_string).collect::<Vec<_>>().join(" "),
        "Lists of ranges with spaces between them."
    );
    text_form!(time, Ps, parse_time, |t| format!("{}ps", t.0), "Times, such as `4.4ns`.");
    text_form!(size, u64, parse_size, |n| format!("{n}B"), "Sizes, such as `48KiB`.");
    text_form!(
        frequency,
        Clock,
        parse_frequency,
        |c| format!("{}MHz", c.mhz),
        "Frequencies, such as `2200MHz`."
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::de::IntoDeserializer;

    #[test]
    fn quantities_are_read_exactly() {
        assert_eq!(parse_time("4.4ns"), Ok(Ps(4400)));
        assert_eq!(parse_time("0.416 ns"), Ok(Ps(416)));
        assert_eq!(parse_size("48KiB"), Ok(49152));
        assert_eq!(parse_size("1.875MiB"), Ok(1_966_080));
        assert_eq!(parse_frequency("2.2GHz"), Ok(Clock { mhz: 2200 }));
    }

    #[test]
    fn wrong_units_and_numbers_are_named() {
        let shown: Vec<String> = [
            parse_time("4.4").unwrap_err(),
            parse_time("4.4KiB").unwrap_err(),
            parse_time("-1ns").unwrap_err(),
            parse_time("1e3ns").unwrap_err(),
            parse_time(".5ns").unwrap_err(),
            parse_time("0.0001ns").unwrap_err(),
            parse_size("99999999999999999999B").unwrap_err(),
            parse_frequency("0MHz").unwrap_err(),
            parse_frequency("nan").unwrap_err(),
        ]
        .iter()
        .map(ToString::to_string)
        .collect();
        expect_test::expect![[r#"
            found `4.4`, expected a time with one of the units ps, ns, us, ms, s
            found `4.4KiB`, expected a time with one of the units ps, ns, us, ms, s
            found `-1ns`, expected a time with one of the units ps, ns, us, ms, s
            found `1e3ns`, expected a time with one of the units ps, ns, us, ms, s
            found `.5ns`, expected a decimal number before the unit, such as 4.4ns
            `0.0001ns` is not a whole number of picoseconds, or too large
            `99999999999999999999B` is not a whole number of bytes, or too large
            `0MHz` is not a whole number of megahertz, or too large
            found `nan`, expected a frequency with one of the units MHz, GHz"#]]
        .assert_eq(&shown.join("\n"));
    }

    #[test]
    fn an_area_has_its_base_and_not_its_end() {
        let area = parse_area("0x100000-0x77800000").unwrap();
        assert_eq!(area, Area { base: 0x10_0000, end: 0x7780_0000 });
        assert_eq!(area.bytes(), 0x7770_0000);
        let next = Area { base: area.end, end: area.end + 1 };
        let last = Area { base: area.end - 1, end: area.end };
        assert!(
            !area.overlaps(&next) && !next.overlaps(&area),
            "neighbours have no byte in common"
        );
        assert!(area.overlaps(&last) && area.contains(&last) && !last.contains(&area));
        assert!(!area.contains(&next) && area.contains(&area));
        let across = Area { base: area.end - 1, end: area.end + 1 };
        assert!(area.overlaps(&across) && !area.contains(&across));
    }

    #[test]
    fn what_is_no_area_is_named() {
        let shown: Vec<String> = [
            "",
            "0x1000",
            "0x1000-",
            "-0x1000",
            "4096-8192",
            "0x2000-0x1000",
            "0x1000-0x1000",
            "0x+1-0x2000",
            "0x-0x1",
            "0x1000 - 0x2000",
            "0x1000-0x2000-0x3000",
            "0x0-0x10000000000000000",
            "0x1000-0x2000\n",
        ]
        .iter()
        .map(|text| parse_area(text).unwrap_err().to_string())
        .collect();
        expect_test::expect![[r#"
            found ``, expected a range such as 0x100000-0x77800000, not empty
            found `0x1000`, expected a range such as 0x100000-0x77800000, not empty
            found `0x1000-`, expected a range such as 0x100000-0x77800000, not empty
            found `-0x1000`, expected a range such as 0x100000-0x77800000, not empty
            found `4096-8192`, expected a range such as 0x100000-0x77800000, not empty
            found `0x2000-0x1000`, expected a range such as 0x100000-0x77800000, not empty
            found `0x1000-0x1000`, expected a range such as 0x100000-0x77800000, not empty
            found `0x+1-0x2000`, expected a range such as 0x100000-0x77800000, not empty
            found `0x-0x1`, expected a range such as 0x100000-0x77800000, not empty
            found `0x1000 - 0x2000`, expected a range such as 0x100000-0x77800000, not empty
            found `0x1000-0x2000-0x3000`, expected a range such as 0x100000-0x77800000, not empty
            found `0x0-0x10000000000000000`, expected a range such as 0x100000-0x77800000, not empty
            found `0x1000-0x2000�`, expected a range such as 0x100000-0x77800000, not empty"#]]
        .assert_eq(&shown.join("\n"));
    }

    #[test]
    fn areas_stand_between_spaces_and_may_be_none() {
        assert_eq!(parse_areas(" \t"), Ok(Vec::new()));
        let two = parse_areas("0x1-0x2  0x2-0x3").unwrap();
        assert_eq!(two, [Area { base: 1, end: 2 }, Area { base: 2, end: 3 }]);
        assert!(parse_areas("0x1-0x2, 0x2-0x3").is_err());
    }

    fn any_area() -> impl Strategy<Value = Area> {
        (any::<u64>(), any::<u64>())
            .prop_filter("empty", |(a, b)| a != b)
            .prop_map(|(a, b)| Area { base: a.min(b), end: a.max(b) })
    }

    proptest! {
        #[test]
        fn areas_are_read_as_they_are_printed(one in any_area(), many in proptest::collection::vec(any_area(), 0..5)) {
            prop_assert_eq!(parse_area(&one.to_string()), Ok(one));
            let text = many.iter().map(Area::to_string).collect::<Vec<_>>().join(" ");
            let read: Result<_, serde::de::value::Error> =
                serde_text::areas::deserialize(text.as_str().into_deserializer());
            prop_assert_eq!(read, Ok(many));
        }

        #[test]
        fn two_areas_overlap_when_a_byte_is_in_both(a in 0u64..20, b in 1u64..20, c in 0u64..20, d in 1u64..20) {
            let (x, y) = (Area { base: a, end: a + b }, Area { base: c, end: c + d });
            let inside = |area: &Area, byte: u64| area.contains(&Area { base: byte, end: byte + 1 });
            let common = (0..50).any(|byte| inside(&x, byte) && inside(&y, byte));
            prop_assert_eq!(x.overlaps(&y), common);
            prop_assert_eq!(x.contains(&y), (c..c + d).all(|byte| inside(&x, byte)));
        }

        #[test]
        fn no_text_panics(text in ".{0,60}|[0-9a-fx -]{0,40}") {
            let _ = parse_area(&text);
            let _ = parse_areas(&text);
            let _ = parse_time(&text);
            let _ = parse_size(&text);
            let _ = parse_frequency(&text);
        }
    }
}
