//! Functions over windows.

/// Placeholder until the branch is merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Function {
    /// Mean.
    Avg,
    /// Least.
    Min,
    /// Most.
    Max,
    /// Median.
    P50,
    /// 90th percentile.
    P90,
    /// 95th.
    P95,
    /// 99th.
    P99,
    /// Change a second.
    Rate,
    /// Change.
    Delta,
}
impl Function {
    /// Name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Avg => "avg",
            Self::Min => "min",
            Self::Max => "max",
            Self::P50 => "p50",
            Self::P90 => "p90",
            Self::P95 => "p95",
            Self::P99 => "p99",
            Self::Rate => "rate",
            Self::Delta => "delta",
        }
    }
}
