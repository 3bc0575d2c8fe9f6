from setuptools import find_namespace_packages, find_packages, setup

recipes = ["pointmix.configs", *(f"pointmix.configs.{name}" for name in find_namespace_packages("configs"))]
setup(
    packages=[*find_packages(include=["pointmix*"]), *recipes],
    package_dir={"pointmix.configs": "configs"},  # recipes: beside the package in a checkout, inside it once installed
    package_data={"": ["py.typed", "*.yaml", "*.html", "*.css", "*.js"]},
)
