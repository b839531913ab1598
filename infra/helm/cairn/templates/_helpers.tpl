{{- define "labels" -}}
app.kubernetes.io/name: cairn
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .role }}
{{- end }}

{{- define "security" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: ["ALL"]
{{- end }}

{{- define "podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
fsGroup: 10001
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "configuration" -}}
name: config
projected:
  defaultMode: 0440
  sources:
    - configMap:
        name: {{ .root.Release.Name }}-{{ .name }}
        items:
          - { key: cairn.toml, path: cairn.toml }
          {{- if eq .root.Values.mode "cluster" }}
          - { key: stores.toml, path: conf.d/1-stores.toml }
          {{- end }}
          - { key: chart.toml, path: conf.d/2-chart.toml }
    {{- if eq .root.Values.mode "cluster" }}
    - secret:
        name: {{ .root.Values.cluster.secretName }}
        items:
          - { key: secrets.toml, path: conf.d/3-secrets.toml }
          - { key: s3.toml, path: secret/s3.toml }
    {{- end }}
    {{- if or (eq .root.Values.mode "cluster") .root.Values.sites }}
    - secret:
        name: {{ .root.Values.tls.secretName }}
        items:
          - { key: tls.crt, path: tls/tls.crt }
          - { key: tls.key, path: tls/tls.key }
          - { key: ca.crt, path: tls/ca.crt }
    {{- end }}
{{- end }}
