"""A class-conditional diffusion model: schedule, network, training, solvers, sampling."""
