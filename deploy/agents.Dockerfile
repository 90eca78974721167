# An image of workers with agents in it, to be copied and changed: the install lines of those you use
# stand in docs/agents.md. With dispatch:local built by docker compose:
#
#   docker build --tag dispatch-agents:local - < deploy/agents.Dockerfile
#
# and WORKER_IMAGE=dispatch-agents:local in .env.
ARG DISPATCH=dispatch:local
FROM node:22-bookworm-slim AS node

# The name is given from outside.
# hadolint ignore=DL3006
FROM ${DISPATCH}
USER 0:0
# For agents that npm installs. Others may need python3 and its kin here.
COPY --from=node /usr/local/bin/node /usr/local/bin/node
COPY --from=node /usr/local/lib/node_modules/npm /usr/local/lib/node_modules/npm
RUN ln -s ../lib/node_modules/npm/bin/npm-cli.js /usr/local/bin/npm \
    && ln -s ../lib/node_modules/npm/bin/npx-cli.js /usr/local/bin/npx
# Name versions, so that the same file makes the same image.
# hadolint ignore=DL3016
RUN HOME=/root npm install --global opencode-ai @openai/codex
USER 10001:10001
