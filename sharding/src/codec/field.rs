//! The field, one byte at a time and in constant time: for constants and as the tests' definition.

/// The product of two elements.
pub(super) const fn mul(a: u8, b: u8) -> u8 {
    let (mut a, mut product, mut bit) = (a, 0, 0);
    while bit < 8 {
        product ^= a & 0u8.wrapping_sub(b >> bit & 1);
        a = (a << 1) ^ (0x1b & 0u8.wrapping_sub(a >> 7));
        bit += 1;
    }
    product
}

/// The inverse of `a`, and 0 for 0: a²⁵⁴ by Fermat.
pub(super) const fn inverse(a: u8) -> u8 {
    let (mut power, mut product, mut bit) = (a, 1, 1);
    while bit < 8 {
        power = mul(power, power);
        product = mul(product, power);
        bit += 1;
    }
    product
}

/// The weights by which values at `known` points sum up to the value at `wanted` (Lagrange). The
/// known points must differ.
pub(super) fn weights(known: &[u8], wanted: u8) -> impl Iterator<Item = u8> {
    known.iter().map(move |&here| {
        let (above, below) = known
            .iter()
            .filter(|&&other| other != here)
            .fold((1, 1), |(above, below), &other| (mul(above, wanted ^ other), mul(below, here ^ other)));
        mul(above, inverse(below))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_those_of_the_standard() {
        // FIPS 197, section 4.2.
        assert_eq!(mul(0x57, 0x83), 0xc1);
        assert_eq!(mul(0x57, 0x13), 0xfe);
    }

    #[test]
    fn every_element_but_zero_has_its_inverse() {
        assert_eq!(inverse(0), 0);
        assert!((1..=255).all(|a| mul(a, inverse(a)) == 1));
    }
}
