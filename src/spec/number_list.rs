//! Lists of processors or memory nodes as the kernel reads them (`bitmap_parselist`): `0-3,7`, a range also as `0-31:2/4`,
//! which is the first two of every four.

/// Numbers above this have no place in a mask; the kernel's own limits are 8,192 processors and 1,024 nodes.
const LIMIT: u32 = 8192;

/// `first..=last`; of every `size` numbers the first `used`.
struct Range {
    first: u32,
    last: u32,
    used: u32,
    size: u32,
}

/// Checks a list.
///
/// # Errors
/// What is wrong with it, in words that follow its name.
pub(crate) fn check(list: &str) -> Result<(), String> {
    list.split(',').try_for_each(|part| parse(part).map(drop))
}

/// A list as a mask, bit n for number n.
///
/// # Errors
/// As [`check`]; also for a number that is too large for any machine.
pub(crate) fn mask(list: &str) -> Result<Vec<u64>, String> {
    let mut mask = Vec::new();
    for part in list.split(',') {
        let Range { first, last, used, size } = parse(part)?;
        if last >= LIMIT {
            return Err(format!("has `{part}`, which is beyond {LIMIT}"));
        }
        mask.resize(mask.len().max(last as usize / 64 + 1), 0_u64);
        for number in (first..=last).filter(|number| (number - first) % size < used) {
            mask[number as usize / 64] |= 1 << (number % 64);
        }
    }
    Ok(mask)
}

fn parse(part: &str) -> Result<Range, String> {
    let number = |text: &str| {
        let digits = !text.is_empty() && text.len() <= 6 && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse::<u32>().ok()).flatten()
    };
    let read = || {
        let (range, group) = part.split_once(':').map_or((part, None), |(range, group)| (range, Some(group)));
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (number(first)?, number(last)?);
        let (used, size) = match group {
            None => (1, 1),
            Some(group) => group.split_once('/').and_then(|(used, size)| Some((number(used)?, number(size)?)))?,
        };
        (first <= last && size > 0 && used <= size).then_some(Range { first, last, used, size })
    };
    read().ok_or_else(|| format!("has `{part}`, which is no number or range"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_as_by_the_kernel() {
        assert_eq!(mask("0-3,7").unwrap(), [0b1000_1111]);
        assert_eq!(mask("63,64").unwrap(), [1 << 63, 1]);
        assert_eq!(mask("1-8:1/3").unwrap(), [0b1001_0010]);
        for bad in ["", ",", "a", "1-", "-1", "3-1", "1,,2", "1 ", "0-3:2", "0-3:5/4", "0-3:1/0", "0x1", "99999999999"]
        {
            assert!(check(bad).is_err() && mask(bad).is_err(), "{bad}");
        }
        for good in ["0", "0-3,7", "2-2", "0-31:2/4"] {
            assert!(check(good).is_ok() && mask(good).is_ok(), "{good}");
        }
        assert!(check("8192").is_ok() && mask("8192").is_err());
    }
}
