/* The linear projection as one would write it in C: the same passes over a row as
 * `theory/kl_kernel.py`, with the library's exponentials and logarithms, and without the care for
 * digits where a is close to b. `bench_projection.py` builds it and compares. */

#include <math.h>
#include <stdlib.h>

static const double GOAL = 2e-13;
static const double LARGE = 1e300;
static const int MOST_STEPS = 32;

static double log_odds(double weight)
{
    return log(weight) - log1p(-weight);
}

static void project_row(const double *log_a, const double *log_b, double k, double *restrict base,
                        double *restrict ratio, double *restrict log_x, double *weight_out, long d)
{
    double top_a = -LARGE, top_b = -LARGE, mass_a = 0, mass_b = 0;
    for (long i = 0; i < d; i++) {
        top_a = log_a[i] > top_a ? log_a[i] : top_a;
        top_b = log_b[i] > top_b ? log_b[i] : top_b;
    }
    for (long i = 0; i < d; i++) {
        double a = exp(log_a[i] - top_a), b = exp(log_b[i] - top_b);
        base[i] = b;
        mass_a += a;
        mass_b += b;
    }
    double log_mass_b = top_b + log(mass_b), shift = top_a + log(mass_a) - log_mass_b;
    double end = 0, half_chi2 = 0;
    for (long i = 0; i < d; i++) {
        double s = log_a[i] - log_b[i] - shift, u = expm1(s), b = base[i] / mass_b;
        base[i] = b;
        ratio[i] = u;
        end += b * ((1 + u) * s - u);
        half_chi2 += 0.5 * b * u * u;
    }
    double weight = 1, quotient = k / half_chi2, half = 0.5 * (k / end - quotient);
    if (k < end) {
        double low = log_odds(0.99 * k / end), high = 36.7, error = LARGE;
        double place = log_odds(half + hypot(half, sqrt(quotient)));
        for (int step = 0; step < MOST_STEPS; step++) {
            double kl = 0, slope = 0;
            weight = 1 / (1 + exp(-place));
            for (long i = 0; i < d; i++) {
                double y = weight * ratio[i], log_ratio = log1p(y);
                kl += base[i] * ((1 + y) * log_ratio - y);
                slope += base[i] * ratio[i] * log_ratio;
            }
            if (fabs(kl - k) <= GOAL * k)
                break;
            if (kl < k)
                low = place;
            else
                high = place;
            double miss = log(k / (end - k) * ((end - kl) / kl)), size = fabs(miss);
            double rate = slope * weight * (1 - weight) * (end / (end - kl) / kl);
            double next = place + miss / rate;
            place = next > low && next < high && size < 0.5 * error ? next : 0.5 * (low + high);
            error = size;
        }
    }
    for (long i = 0; i < d; i++)
        log_x[i] = log_b[i] - log_mass_b + log1p(weight * ratio[i]);
    *weight_out = weight;
}

void project_rows(const double *log_a, const double *log_b, const double *k, double *log_x,
                  double *weight, long n, long d)
{
    double *scratch = malloc(2 * (size_t)d * sizeof(double));
    for (long i = 0; i < n; i++)
        project_row(log_a + i * d, log_b + i * d, k[i], scratch, scratch + d, log_x + i * d,
                    weight + i, d);
    free(scratch);
}
