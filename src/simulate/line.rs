//! The lines of a trace as cells: each with its number, of bounded length, without comments and blank ones. What the
//! cells mean is in `trace`.

use std::io::{self, BufRead, BufReader, Read};
use std::ops::Range;

use csv_core::ReadRecordResult;

/// Longest line, in bytes: thousands of columns.
const LONGEST: usize = 256 * 1024;

/// Why a line cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// The file.
    #[error("the trace cannot be read")]
    Read(#[source] io::Error),
    /// No text.
    #[error("line {0} is not UTF-8 text; save the trace as comma-separated values in UTF-8")]
    NotText(u64),
    /// Longer than any trace has.
    #[error("line {0} is longer than {LONGEST} bytes; a trace has one line for each moment")]
    TooLong(u64),
    /// A quotation mark without its other half.
    #[error(
        "line {0} has a quotation mark that is not closed in the line; write the cell without, or close it"
    )]
    Quote(u64),
}

/// Reads lines one after another into the same memory.
pub(super) struct Lines<R> {
    source: BufReader<R>,
    number: u64,
    line: Vec<u8>,
    /// The cells without their quotation marks, one after another, and where each ends.
    text: Vec<u8>,
    ends: Vec<usize>,
    cells: usize,
    csv: csv_core::Reader,
}

impl<R: Read> Lines<R> {
    pub(super) fn new(source: R) -> Self {
        Self {
            source: BufReader::new(source),
            number: 0,
            line: Vec::new(),
            text: Vec::new(),
            ends: vec![0; 8],
            cells: 0,
            csv: csv_core::Reader::new(),
        }
    }

    /// The number of the line, from 1.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Reads the next line; false at the end.
    pub(super) fn next(&mut self) -> Result<bool, LineError> {
        loop {
            self.line.clear();
            self.number += 1;
            let most = u64::try_from(LONGEST).unwrap_or(u64::MAX) + 1;
            let read = self
                .source
                .by_ref()
                .take(most)
                .read_until(b'\n', &mut self.line)
                .map_err(LineError::Read)?;
            if read == 0 {
                return Ok(false);
            }
            if read > LONGEST {
                return Err(LineError::TooLong(self.number));
            }
            if self.number == 1 && self.line.starts_with("\u{feff}".as_bytes()) {
                // The mark that some programs put before UTF-8 is no part of the first cell.
                self.line.drain(..3);
            }
            let blank = self.line.iter().all(u8::is_ascii_whitespace);
            if !blank && self.line.first() != Some(&b'#') {
                break;
            }
        }
        if std::str::from_utf8(&self.line).is_err() {
            return Err(LineError::NotText(self.number));
        }
        if !self.is_closed() {
            return Err(LineError::Quote(self.number));
        }
        self.split();
        Ok(true)
    }

    /// Whether each quotation mark at the head of a cell has its other half: the parser takes the end of the line for it.
    fn is_closed(&self) -> bool {
        let (mut quoted, mut head) = (false, true);
        for byte in &self.line {
            // Two within a quoted cell stand for one, and leave it quoted.
            match byte {
                b'"' if quoted => quoted = false,
                b'"' if head => quoted = true,
                _ => {}
            }
            head = !quoted && matches!(byte, b',' | b'"');
        }
        !quoted
    }

    fn split(&mut self) {
        self.csv.reset();
        self.cells = 0;
        // Cells are never longer than the line, so only the number of cells may need more room.
        self.text.resize(self.line.len(), 0);
        let (mut read, mut written) = (0, 0);
        loop {
            let (result, input, output, ends) = self.csv.read_record(
                &self.line[read..],
                &mut self.text[written..],
                &mut self.ends[self.cells..],
            );
            read += input;
            written += output;
            self.cells += ends;
            match result {
                // Asked again with no input left, it ends the record.
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputEndsFull => self.ends.resize(self.ends.len() * 2, 0),
                ReadRecordResult::OutputFull => self.text.resize(self.text.len() * 2 + 1, 0),
                ReadRecordResult::Record | ReadRecordResult::End => return,
            }
        }
    }

    /// The cells of the line, without the blanks around them.
    pub(super) fn cells(&self) -> impl ExactSizeIterator<Item = &str> {
        (0..self.cells).map(|index| {
            let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
            let cell: Range<usize> = start..self.ends[index];
            // The line is text, and cells are cut at commas and quotation marks alone.
            std::str::from_utf8(&self.text[cell])
                .unwrap_or_default()
                .trim()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &[u8]) -> Result<Vec<(u64, Vec<String>)>, LineError> {
        let mut lines = Lines::new(text);
        let mut found = Vec::new();
        while lines.next()? {
            let cells = lines.cells().map(str::to_owned).collect();
            found.push((lines.number(), cells));
        }
        Ok(found)
    }

    #[test]
    fn lines_keep_their_numbers_and_cells_lose_quotes_and_blanks() {
        let text = "\u{feff}\"a\", b ,\"c,\"\"d\"\"\"\r\n\r\n# none\r\n1,,\n\n2";
        let cells = |cells: &[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect();
        let expected = vec![
            (1, cells(&["a", "b", "c,\"d\""])),
            (4, cells(&["1", "", ""])),
            (6, cells(&["2"])),
        ];
        assert_eq!(all(text.as_bytes()).unwrap(), expected);
        assert_eq!(all(b"").unwrap(), []);
    }

    #[test]
    fn as_many_cells_as_a_line_has_are_read() {
        let text = vec!["12345"; 1000].join(",");
        let found = all(text.as_bytes()).unwrap();
        assert_eq!(found[0].1.len(), 1000);
        assert!(found[0].1.iter().all(|cell| cell == "12345"));
    }

    #[test]
    fn what_is_no_text_or_has_no_end_is_refused() {
        assert!(matches!(all(b"a,b\n1,\xff\n"), Err(LineError::NotText(2))));
        assert!(matches!(all(b"a,b\n1,\"2\n"), Err(LineError::Quote(2))));
        assert!(matches!(all(b"a,b\n\"1\"\",2\n"), Err(LineError::Quote(2))));
        assert!(all(b"a,b\n\"1\"\"\",2\n1,5\"\n").is_ok());
        let endless = vec![b'1'; LONGEST + 10];
        assert!(matches!(all(&endless), Err(LineError::TooLong(1))));
    }
}
