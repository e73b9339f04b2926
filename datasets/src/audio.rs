//! Features of speech: filter-bank energies on the mel scale, cepstra, differences over time.
//!
//! Davis and Mermelstein, "Comparison of Parametric Representations for Monosyllabic Word Recognition", IEEE
//! Transactions on Acoustics, Speech, and Signal Processing, 1980, with the conventions of the Python package
//! `python_speech_features`, which the public preparation of Speech Commands for FastGRNN and iRNN uses; they
//! are compared number by number. With a signal `s` of `L` samples, frames of `W` samples every `S`:
//!
//! - pre-emphasis: `s'[0] = s[0]`, `s'[i] = s[i] - 0.97 s[i-1]`;
//! - frames: 1 if `L <= W`, else `1 + ceil((L - W) / S)`; what is missing at the end is 0. One second at
//!   16 kHz with 25 ms every 10 ms gives 99;
//! - power: `|FFT_512(frame · window)|² / 512`, 257 bins; energy is their sum;
//! - filters: triangles between bins `floor(513 f / rate)`, `f` evenly spaced in `2595 log10(1 + f/700)` from
//!   0 to half the rate;
//! - cepstra: the logarithm of the filters' energies through an orthonormal DCT-II, coefficient `n` times
//!   `1 + 11 sin(π n / 22)`; coefficient 0 is replaced by the logarithm of the energy;
//! - difference: `Σ_{k=-2}^{2} k f[t+k] / 10`, the first and last frame repeated.
//!
//! An energy of exactly 0 is replaced by 2^-52 before the logarithm.

use std::f64::consts::PI;
use std::sync::Arc;

use realfft::num_complex::Complex;
use realfft::{RealFftPlanner, RealToComplex};

/// Points of the Fourier transform.
const POINTS: usize = 512;
const BINS: usize = POINTS / 2 + 1;
const PRE_EMPHASIS: f64 = 0.97;
const LIFTER: f64 = 22.0;

/// Window that each frame is multiplied by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// Nothing.
    Rectangular,
    /// `0.54 - 0.46 cos(2π i / (W - 1))`.
    Hamming,
}

/// Feature extraction for one sampling rate and one filter bank.
pub struct Features {
    frame: usize,
    step: usize,
    window: Vec<f64>,
    /// First bin and weights of each filter.
    filters: Vec<(usize, Vec<f64>)>,
    fft: Arc<dyn RealToComplex<f64>>,
}

/// Filter energies and total energies of the frames of a signal.
struct Energies {
    /// `[frames][filters]`.
    filters: Vec<Vec<f64>>,
    total: Vec<f64>,
}

impl Features {
    /// Frames of 25 ms every 10 ms at `rate` Hz with so many filters. A rate above 20 480 Hz, at which a frame
    /// has more than 512 samples, is cut to the first 512 of each frame, as in the reference.
    pub fn new(rate: u32, filters: usize, window: Window) -> Features {
        let round = |x: f64| ((x + 0.5).floor() as usize).max(1);
        let (frame, step) = (round(0.025 * f64::from(rate)), round(0.010 * f64::from(rate)));
        let weight = |i: usize| match window {
            Window::Hamming if frame > 1 => 0.54 - 0.46 * (2.0 * PI * i as f64 / (frame - 1) as f64).cos(),
            _ => 1.0,
        };
        let mel = |hertz: f64| 2595.0 * (1.0 + hertz / 700.0).log10();
        let hertz = |mel: f64| 700.0 * (10f64.powf(mel / 2595.0) - 1.0);
        let highest = mel(f64::from(rate) / 2.0);
        let edge = |i: usize| {
            let at = hertz(highest * i as f64 / (filters + 1) as f64);
            (((POINTS + 1) as f64 * at / f64::from(rate)).floor() as usize).min(BINS)
        };
        let triangle = |j: usize| {
            let (low, middle, high) = (edge(j), edge(j + 1), edge(j + 2));
            let rising = (low..middle).map(|i| (i - low) as f64 / (middle - low) as f64);
            let falling = (middle..high).map(|i| (high - i) as f64 / (high - middle) as f64);
            (low, rising.chain(falling).collect())
        };
        Features {
            frame,
            step,
            window: (0..frame.min(POINTS)).map(weight).collect(),
            filters: (0..filters).map(triangle).collect(),
            fft: RealFftPlanner::new().plan_fft_forward(POINTS),
        }
    }

    /// Number of frames of a signal of so many samples.
    pub fn frames(&self, samples: usize) -> usize {
        1 + samples.saturating_sub(self.frame).div_ceil(self.step)
    }

    /// Sample in the middle of a frame.
    pub fn center(&self, frame: usize) -> usize {
        frame * self.step + self.frame / 2
    }

    fn energies(&self, signal: &[i16]) -> Energies {
        let sample = |i: usize| signal.get(i).map_or(0.0, |&s| f64::from(s));
        // Padding comes after the pre-emphasis: the sample after the last is 0, not -0.97 times it.
        let emphasized = |i: usize| match i {
            0 => sample(0),
            _ if i < signal.len() => sample(i) - PRE_EMPHASIS * sample(i - 1),
            _ => 0.0,
        };
        let frames = self.frames(signal.len());
        let (mut time, mut spectrum) = (self.fft.make_input_vec(), self.fft.make_output_vec());
        let mut result = Energies { filters: Vec::new(), total: Vec::new() };
        for t in 0..frames {
            time.fill(0.0);
            for (i, (x, w)) in time.iter_mut().zip(&self.window).enumerate() {
                *x = emphasized(t * self.step + i) * w;
            }
            // Both buffers have the lengths that the plan made them with, so this cannot fail.
            if self.fft.process(&mut time, &mut spectrum).is_err() {
                spectrum.fill(Complex::new(0.0, 0.0));
            }
            let power: Vec<f64> = spectrum.iter().map(|z| z.norm_sqr() / POINTS as f64).collect();
            let filter = |(first, weights): &(usize, Vec<f64>)| {
                positive(weights.iter().zip(&power[*first..]).map(|(w, p)| w * p).sum())
            };
            result.filters.push(self.filters.iter().map(filter).collect());
            result.total.push(positive(power.iter().sum()));
        }
        result
    }

    /// Logarithms of the filters' energies, `[frames][filters]`.
    pub fn log_mel(&self, signal: &[i16]) -> Vec<Vec<f64>> {
        let mut energies = self.energies(signal).filters;
        energies.iter_mut().flatten().for_each(|e| *e = e.ln());
        energies
    }

    /// Logarithm of the energy, then cepstral coefficients `1..coefficients`: `[frames][coefficients]`.
    pub fn cepstra(&self, signal: &[i16], coefficients: usize) -> Vec<Vec<f64>> {
        let energies = self.energies(signal);
        let filters = self.filters.len() as f64;
        let cepstrum = |frame: &Vec<f64>, n: usize| {
            let n = n as f64;
            let wave = |k: usize| (PI * n * (2.0 * k as f64 + 1.0) / (2.0 * filters)).cos();
            let sum: f64 = frame.iter().enumerate().map(|(k, e)| e.ln() * wave(k)).sum();
            sum * (2.0 / filters).sqrt() * (1.0 + LIFTER / 2.0 * (PI * n / LIFTER).sin())
        };
        let frames = energies.filters.iter().zip(&energies.total);
        frames
            .map(|(frame, total)| {
                let rest = (1..coefficients).map(|n| cepstrum(frame, n));
                std::iter::once(total.ln()).chain(rest).collect()
            })
            .collect()
    }
}

/// Differences over time of features `[frames][width]`, over two frames on either side.
pub fn differences(features: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let Some(last) = features.len().checked_sub(1) else { return Vec::new() };
    let at = |t: usize, k: usize, c: usize| features[(t + k).saturating_sub(2).min(last)][c];
    let slope = |t: usize, c: usize| (0..5).map(|k| (k as f64 - 2.0) * at(t, k, c)).sum::<f64>() / 10.0;
    (0..=last).map(|t| (0..features[t].len()).map(|c| slope(t, c)).collect()).collect()
}

fn positive(energy: f64) -> f64 {
    if energy == 0.0 { f64::EPSILON } else { energy }
}
