from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["pointmix*"]), "pointmix.configs"],
    package_dir={"pointmix.configs": "configs"},  # recipes: beside the package in a checkout, inside it once installed
    package_data={
        "pointmix": ["py.typed"],
        "pointmix.explain.page": ["*.html", "*.css", "*.js"],
        "pointmix.configs": ["**/*.yaml"],
    },
)
