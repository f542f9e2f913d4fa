"""The domain: projects, rounds, jobs, images, and the outside world they live in."""
