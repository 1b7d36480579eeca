//! Phone numbers that a text can be sent to: written by people in many ways, kept as E.164.

use rlibphonenumber::{PhoneNumber, PhoneNumberFormat, PhoneNumberType, Region};

use crate::limits;

/// The number as E.164, or what is wrong with it. `region` is where a number without a country is from, two letters of
/// ISO 3166.
///
/// Digits, one + in front, and what separates digits: the library would also take letters for digits, full-width digits
/// and extensions, which are mistakes in a number that is to be texted.
pub fn parse(text: &str, region: &str) -> Result<String, &'static str> {
    let text = text.trim_matches(' ');
    let digits = text.strip_prefix('+').unwrap_or(text);
    if !digits.chars().all(|c| c.is_ascii_digit() || matches!(c, ' ' | '-' | '.' | '(' | ')')) {
        return Err("has other characters than digits, + in front, spaces, dots, hyphens and brackets");
    }
    if digits.len() > limits::PHONE_CHARS || digits.bytes().filter(u8::is_ascii_digit).count() > limits::PHONE_DIGITS {
        return Err("has more digits than a phone number");
    }
    let number = PhoneNumber::parse(text, region.parse::<Region>().ok()).map_err(|_| "is not a phone number")?;
    if !number.is_valid() {
        return Err("is not a number that its country gives to anybody");
    }
    match number.get_type() {
        PhoneNumberType::Mobile | PhoneNumberType::FixedLineOrMobile | PhoneNumberType::PersonalNumber => (),
        // Each would be paid for and reach nobody, or cost whoever calls back.
        _ => return Err("is neither a mobile nor a personal number, so no text can be sent to it"),
    }
    let number = number.format_as(PhoneNumberFormat::E164).into_owned();
    if number.starts_with(MACHINES) {
        return Err("is the number of a machine, not of a person's phone");
    }
    Ok(number)
}

/// 012 in Korea, which the library's data has among mobiles: meters, vehicles and the like.
const MACHINES: &str = "+8212";

/// What a log may say of a number: its country and its end.
pub fn masked(number: &str) -> String {
    let (head, tail) = (number.get(..3), number.len().checked_sub(2).and_then(|at| number.get(at..)));
    format!("{}***{}", head.unwrap_or_default(), tail.unwrap_or_default())
}

/// As people at home dial it: the country's code, and the digits.
pub fn dialled(number: &str) -> Option<(i32, String)> {
    let parsed = PhoneNumber::parse(number, None).ok()?;
    let home = parsed.format_as(PhoneNumberFormat::National);
    Some((parsed.country_code, home.chars().filter(char::is_ascii_digit).collect()))
}

/// As people in Korea write it: `010-1234-5678`. A number from elsewhere stays as it is.
pub fn hyphenated(number: &str) -> String {
    let Some((KOREA, digits)) = dialled(number) else { return number.to_owned() };
    // 050 and one or two digits name a service; the library knows nothing of the further parts.
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

pub const KOREA: i32 = 82;

#[cfg(test)]
mod tests {
    use super::*;

    /// S1-27: vendors are told a number as Korea writes it.
    #[test]
    fn numbers_are_written_as_at_home() {
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
