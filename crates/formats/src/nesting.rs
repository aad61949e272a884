//! The levels of an array of several dimensions, written item by item.

/// What opens and closes around the items of an array, item by item, from the sizes of its dimensions: before item `n`
/// as many levels open as `n` is the first item of, behind it as many close as it is the last item of. The outermost
/// level is the caller's.
pub(crate) struct Nesting {
    /// Items in one element of each inner level, outermost first.
    strides: Vec<usize>,
}

impl Nesting {
    pub(crate) fn new(sizes: &[usize]) -> Self {
        let inner = sizes.get(1..).unwrap_or_default();
        Self { strides: (0..inner.len()).map(|level| inner[level..].iter().product()).collect() }
    }

    pub(crate) fn opens(&self, item: usize) -> usize {
        self.strides.iter().filter(|stride| item.is_multiple_of(**stride)).count()
    }

    pub(crate) fn closes(&self, item: usize) -> usize {
        self.opens(item + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_open_and_close_by_the_sizes() {
        let nesting = Nesting::new(&[2, 2, 3]);
        let opened: Vec<usize> = (0..12).map(|item| nesting.opens(item)).collect();
        assert_eq!(opened, [2, 0, 0, 1, 0, 0, 2, 0, 0, 1, 0, 0]);
        let closed: Vec<usize> = (0..12).map(|item| nesting.closes(item)).collect();
        assert_eq!(closed, [0, 0, 1, 0, 0, 2, 0, 0, 1, 0, 0, 2]);
        assert_eq!(Nesting::new(&[4]).opens(0), 0);
        assert_eq!(Nesting::new(&[]).opens(0), 0);
    }
}
