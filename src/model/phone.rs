//! Phone numbers that can receive texts: written by people in many ways, stored as E.164.

use rlibphonenumber::{PhoneNumber, PhoneNumberFormat, PhoneNumberType, Region};

use crate::limits;

/// Parses a phone number and returns it as E.164. `region`: the country of a number without a country code, two letters
/// of ISO 3166.
///
/// Accepts digits, one + in front, and separators. The library would also accept letters, full-width digits and
/// extensions, which are mistakes in a number that is to receive a text.
///
/// # Errors
/// The fault, as a sentence about the number without its subject.
pub fn parse(text: &str, region: &str) -> Result<String, &'static str> {
    let text = text.trim_matches(' ');
    let digits = text.strip_prefix('+').unwrap_or(text);
    if !digits.chars().all(|c| c.is_ascii_digit() || matches!(c, ' ' | '-' | '.' | '(' | ')')) {
        return Err("has characters other than digits, a leading +, spaces, dots, hyphens and brackets");
    }
    if digits.len() > limits::PHONE_CHARS || digits.bytes().filter(u8::is_ascii_digit).count() > limits::PHONE_DIGITS {
        return Err("has more digits than a phone number");
    }
    let number = PhoneNumber::parse(text, region.parse::<Region>().ok()).map_err(|_| "is not a phone number")?;
    if !number.is_valid() {
        return Err("is not an assigned number in its country");
    }
    match number.get_type() {
        PhoneNumberType::Mobile | PhoneNumberType::FixedLineOrMobile | PhoneNumberType::PersonalNumber => (),
        // A text to any other kind of number is paid for and reaches no person, or causes a paid call back.
        _ => return Err("is neither a mobile nor a personal number, so no text can be sent to it"),
    }
    let number = number.format_as(PhoneNumberFormat::E164).into_owned();
    if number.starts_with(MACHINES) {
        return Err("is a number for machines, not for a person's phone");
    }
    Ok(number)
}

/// 012 in Korea, which the library counts as mobile: meters, vehicles and the like.
const MACHINES: &str = "+8212";

/// A number masked for logs: its first three and last two characters.
pub fn masked(number: &str) -> String {
    let (head, tail) = (number.get(..3), number.len().checked_sub(2).and_then(|at| number.get(at..)));
    format!("{}***{}", head.unwrap_or_default(), tail.unwrap_or_default())
}

/// The country code and the national digits with trunk prefix, as dialled within the country. `None` if it is not a
/// number.
pub fn dialled(number: &str) -> Option<(i32, String)> {
    let parsed = PhoneNumber::parse(number, None).ok()?;
    let home = parsed.format_as(PhoneNumberFormat::National);
    Some((parsed.country_code, home.chars().filter(char::is_ascii_digit).collect()))
}

/// The number in Korean notation, `010-1234-5678`. A number from another country is returned unchanged.
pub fn hyphenated(number: &str) -> String {
    let Some((KOREA, digits)) = dialled(number) else { return number.to_owned() };
    // 050 and one or two digits name a service; the library does not know how such numbers are divided.
    let (head, tail) = match (digits.starts_with("050"), digits.len()) {
        (true, 11 | 12) => (4, 4),
        (false, 9..=11) if digits.starts_with("02") => (2, 4),
        (false, 10 | 11) => (3, 4),
        _ => return digits,
    };
    let parts = (digits.get(..head), digits.get(head..digits.len() - tail), digits.get(digits.len() - tail..));
    match parts {
        (Some(a), Some(b), Some(c)) => format!("{a}-{b}-{c}"),
        _ => digits,
    }
}

/// Korea's country code.
pub const KOREA: i32 = 82;

#[cfg(test)]
mod tests {
    use super::*;

    /// S1-27: vendors get numbers in Korean notation.
    #[test]
    fn korean_numbers_are_hyphenated() {
        for (number, digits, written) in [
            ("+821012345678", "01012345678", "010-1234-5678"),
            ("+82112345678", "0112345678", "011-234-5678"),
            ("+8250712345678", "050712345678", "0507-1234-5678"),
            ("+82212345678", "0212345678", "02-1234-5678"),
            ("+8215881234", "15881234", "15881234"),
        ] {
            assert_eq!(dialled(number), Some((KOREA, digits.to_owned())), "{number}");
            assert_eq!(hyphenated(number), written);
        }
        assert_eq!(dialled("+12025550123"), Some((1, "2025550123".to_owned())));
        assert_eq!(hyphenated("+12025550123"), "+12025550123");
        assert_eq!((dialled("x"), hyphenated("x").as_str()), (None, "x"));
    }
}
