FROM debian:bookworm-slim AS dev
ARG USERNAME=vscode
ARG USER_UID=1000
ARG USER_GID=$USER_UID
RUN groupadd --gid $USER_GID $USERNAME \
    && useradd --uid $USER_UID --gid $USER_GID -m $USERNAME \
    && echo $USERNAME ALL=\(root\) NOPASSWD:ALL > /etc/sudoers.d/$USERNAME \
    && chmod 0440 /etc/sudoers.d/$USERNAME
USER $USERNAME
ENV PATH="/home/${USERNAME}/.local/bin:${PATH}" EDITOR=vi
RUN mkdir -p "$HOME/.config"
COPY --chown=$USERNAME:$USERNAME .devcontainer/dotfiles /home/$USERNAME/
WORKDIR /workspaces/${PWD:-project}
