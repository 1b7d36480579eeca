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
