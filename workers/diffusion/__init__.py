"""Training and drawing with diffusion models. Pictures, files and numbers in; pictures, files and numbers out.

No queue, web or table is in sight. torch and diffusers take seconds to import, so this package imports
nothing by itself.
"""
