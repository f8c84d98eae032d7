FROM nginx:1.29-alpine
RUN rm -rf /usr/share/nginx/html/*
COPY <<'EOF' /etc/nginx/conf.d/default.conf
server {
    listen 80;
    location / { try_files $uri $uri/ /index.html; }
}
EOF
COPY --chmod=0644 public /usr/share/nginx/html
EXPOSE 80 443
