# orderkit in a container. EXTRAS adds optional parts: docker build --build-arg EXTRAS=lab,kafka .
FROM python:3.12-slim

ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore

RUN useradd --create-home --uid 1000 orderkit
WORKDIR /src

# Dependencies first: a changed source file does not download them again.
ARG EXTRAS=""
COPY pyproject.toml ./
RUN python -c "\
import tomllib; \
project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
extras = [project['optional-dependencies'][name] for name in '$EXTRAS'.split(',') if name]; \
print(*project['dependencies'], *sum(extras, []), sep='\n')" > /tmp/requirements.txt \
    && pip install -r /tmp/requirements.txt

COPY . ./
RUN pip install --no-deps .

USER orderkit
WORKDIR /home/orderkit
CMD ["orderkit", "--help"]
